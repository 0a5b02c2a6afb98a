"""The chart's README: a table of every value, from values.yaml and the comments in it."""
import re

HEAD = """\
# The roomcast chart

Made from values.yaml by `make helm-docs`; do not edit. How to install it, and what to think of before people depend on it:
[docs/kubernetes.md](../../docs/kubernetes.md). A misspelt value or setting is refused by `values.schema.json`; values that
need each other are checked when the chart is rendered.

```sh
helm install chat helm/roomcast --set redis.trial.enabled=true --set backend.enabled=true \\
  --set secrets.values.JWT_SECRET=$(openssl rand -hex 32)
```

| Value | Default | |
|---|---|---|
"""


def rows(text):
    """(path, default, comment) of each line of values.yaml that has a value."""
    path, comment = [], []
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped[1:].strip())
            continue
        match = re.match(r"^( *)([A-Za-z0-9_-]+):(.*)$", line)
        if not match:
            comment = []
            continue
        depth = len(match[1]) // 2
        path = path[:depth] + [match[2]]
        default = match[3].strip()
        if default or comment:
            yield ".".join(path), default, " ".join(comment)
        comment = []


def make(chart):
    """README.md of the chart."""
    lines = []
    for path, default, comment in rows((chart / "values.yaml").read_text()):
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{path}` | {shown} | {comment} |".replace("|  |", "| |"))
    return {chart / "README.md": HEAD + "\n".join(lines) + "\n"}
