"""Experiments that prove the chapters; `python -m labs list` names them."""
