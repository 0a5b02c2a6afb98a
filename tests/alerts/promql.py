"""What a PromQL expression asks for: metrics with their matchers, and labels that it groups or joins by. No parser: promtool
checks the syntax, this finds the names."""

import re

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*@(\d+)@")
# A name that is not called, with its braces.
SELECTOR = re.compile(r"(?<![\w:@$.])([A-Za-z_:][\w:]*)(?![\w:])(?!\s*\()\s*(?:\{([^}]*)\})?")
RANGE = re.compile(r"\[[^\]]*\]")
# Words of the language that stand where a metric could.
WORDS = {"and", "or", "unless", "offset", "bool"}


def selectors(expr):
    """(metric, [(label, operator, value)]) of every selector."""
    strings = []

    def keep(match):
        strings.append(match[0][1:-1])
        return f"@{len(strings) - 1}@"

    bare = GROUPING.sub(" ", RANGE.sub("", STRING.sub(keep, expr)))
    for name, matchers in SELECTOR.findall(bare):
        if name not in WORDS:
            yield name, [(label, operator, strings[int(place)]) for label, operator, place in MATCHER.findall(matchers)]


def groupings(expr):
    """The labels of every `by`, `on` and the like."""
    bare = STRING.sub("", expr)
    return {label.strip() for labels in GROUPING.findall(bare) for label in labels.split(",") if label.strip()}
