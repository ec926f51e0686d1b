"""Programs that turn docs/ into the published site and check what it promises."""
