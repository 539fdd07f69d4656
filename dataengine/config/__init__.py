"""Typed, frozen dataset specs (the only place with defaults), distributions, YAML loading with line-exact errors."""
