"""Writes docs/reference/metrics.md from the metrics' own module: `make docs`. A test fails when the two differ."""

from pathlib import Path

from app.observability.metrics import DECLARED, SECONDS, Declared, Label

TARGET = Path(__file__).parent / "reference" / "metrics.md"

HEAD = """# Metrics

*Made from `app/observability/metrics.py` by `make docs`; do not edit.*

What `GET /metrics` shows, and nothing else: no metric of a library, no id, no name, no address. How to collect it stands in
[docs/operation/observability.md](../operation/observability.md).

- *counted*: by each process of the server, and added up over all of them. Counts begin anew with the server. A label with a
  closed list is shown from the start, as 0, where it is the only one.
- *told*: by each process once a second, then added up or the largest of them, as the help says.
- *read*: from the database when somebody asks, at most every three seconds, for the whole installation. What cannot be read is
  left out, and `rota_database_up` is 0.

Histograms have buckets up to {buckets} seconds.

| metric | kind | from | labels | help |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    rows = [_row(declared) for declared in DECLARED.values()]
    labels = {label: None for declared in DECLARED.values() for label in declared.labels}
    return HEAD.format(buckets=", ".join(f"{bound:g}" for bound in SECONDS)) + "\n".join(
        [*rows, "", "## Labels", "", *map(_label, labels), ""]
    )


def _row(declared: Declared) -> str:
    source = "read" if declared.read else "told" if declared.kind == "gauge" else "counted"
    names = ", ".join(f"`{name}`" for name in declared.label_names)
    return f"| `{declared.name}` | {declared.kind} | {source} | {names} | {declared.help} |"


def _label(label: Label) -> str:
    values = f": {', '.join(f'`{value}`' for value in label.values)}" if label.values else ""
    return f"- `{label.name}`, {label.meaning}{values}"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
