"""A made-up lab: only its fact's line is read."""

FACTS = {
    "holds": "見本である",
}
