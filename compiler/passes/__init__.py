"""The passes, one file each; `PASSES` lists all of them by the name that the command line uses."""

from .append_caches import AppendCaches
from .base import Pass, Rules, pass_name
from .fuse_attention import FuseAttention
from .fuse_bags import FuseBags
from .fuse_epilogue import FuseEpilogue
from .fuse_maps import FuseMaps
from .fuse_norms import FuseNorms
from .fuse_rotary import FuseRotary
from .fuse_states import FuseStates
from .fuse_tails import FuseTails
from .fuse_updates import FuseUpdates
from .group_heads import GroupHeads
from .keep_packed import KeepPacked
from .keep_rounding import KeepRounding
from .legalise import Legalise
from .lower_indexing import LowerIndexing
from .merge_siblings import MergeSiblings
from .merge_tables import MergeTables
from .quantise import Quantise
from .route_experts import RouteExperts
from .set_precision import SetPrecision
from .set_weight_layout import SetWeightLayout
from .split_into_strips import SplitIntoStrips
from .tidy import Fold, Prune

__all__ = [
    "PASSES",
    "AppendCaches",
    "Fold",
    "FuseAttention",
    "FuseBags",
    "FuseEpilogue",
    "FuseMaps",
    "FuseNorms",
    "FuseRotary",
    "FuseStates",
    "FuseTails",
    "FuseUpdates",
    "GroupHeads",
    "KeepPacked",
    "KeepRounding",
    "Legalise",
    "LowerIndexing",
    "MergeSiblings",
    "MergeTables",
    "Pass",
    "Prune",
    "Quantise",
    "RouteExperts",
    "Rules",
    "SetPrecision",
    "SetWeightLayout",
    "SplitIntoStrips",
]

_CLASSES = [globals()[name] for name in __all__ if name not in ("PASSES", "Pass", "Rules")]
PASSES: dict[str, type[Pass]] = {pass_name(p): p for p in _CLASSES}
