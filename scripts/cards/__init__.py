"""The pictures that stand beside a link to a page in chats and issue trackers."""
