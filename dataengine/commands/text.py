"""Words of the commands."""


def counted(number: int, noun: str) -> str:
    """`1 video`, `2 videos`: a number with its noun, which takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
