"""A number with its noun, for messages."""


def counted(number: int, noun: str, number_format: str = "") -> str:
    """A number and its noun, in the plural unless it is 1.

    Args:
        number: How many.
        noun: In the singular; its plural ends with s.
        number_format: How the number is written, such as a comma for thousands.

    Example:
        >>> counted(1, "image"), counted(2, "image"), counted(1000, "row", ",")
        ('1 image', '2 images', '1,000 rows')
    """
    return f"{number:{number_format}} {noun}{'s' * (number != 1)}"
