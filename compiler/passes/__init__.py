"""The passes, one file each; `PASSES` lists all of them by the name that the command line uses."""

from .attention import Attention
from .bags import Bags
from .base import Pass, Rules
from .caches import Caches
from .epilogue import Epilogue
from .heads import Heads
from .indexing import Indexing
from .layout import Layout
from .legalise import Legalise
from .maps import Maps
from .norms import Norms
from .packed import Packed
from .precision import Precision
from .quantise import Quantise
from .rotary import Rotary
from .rounding import Rounding
from .siblings import Siblings
from .strips import Strips
from .tables import Tables
from .tails import Tails
from .tidy import Fold, Prune

PASSES: dict[str, type[Pass]] = {
    p.__name__.lower(): p
    for p in (
        Attention,
        Bags,
        Caches,
        Epilogue,
        Fold,
        Heads,
        Indexing,
        Layout,
        Legalise,
        Maps,
        Norms,
        Packed,
        Precision,
        Prune,
        Quantise,
        Rotary,
        Rounding,
        Siblings,
        Strips,
        Tables,
        Tails,
    )
}

__all__ = [
    "PASSES",
    "Attention",
    "Bags",
    "Caches",
    "Epilogue",
    "Fold",
    "Heads",
    "Indexing",
    "Layout",
    "Legalise",
    "Maps",
    "Norms",
    "Packed",
    "Pass",
    "Precision",
    "Prune",
    "Quantise",
    "Rotary",
    "Rounding",
    "Rules",
    "Siblings",
    "Strips",
    "Tables",
    "Tails",
]
