"""bridge-edge: distil an expensive black-box teacher into a sub-1B model that runs offline.

from bridge_edge import Student
print(Student.load("runs/legal-1").answer("...").answer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge_edge.student import Student

__all__ = ["Student", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Student` is imported when it is asked for, so that `import bridge_edge` stays cheap."""
    if name == "Student":
        from bridge_edge.student import Student

        return Student
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
