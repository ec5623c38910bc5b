"""The record types that are always there. A new one of ours is a file beside this one, and its line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from modelgraft.records.audio import AudioType
from modelgraft.records.boxes import BoxesType
from modelgraft.records.conversation import ConversationType
from modelgraft.records.depth import DepthType
from modelgraft.records.embedding import EmbeddingType
from modelgraft.records.image import ImageType
from modelgraft.records.imu import ImuType
from modelgraft.records.label import LabelType
from modelgraft.records.mask import MaskType
from modelgraft.records.object import ObjectType
from modelgraft.records.record_type import RecordType
from modelgraft.records.text import TextType
from modelgraft.records.thermal import ThermalType
from modelgraft.records.video import VideoType

OURS = (
    ImageType(), AudioType(), VideoType(), DepthType(), ThermalType(), ImuType(), TextType(), ConversationType(), LabelType(), BoxesType(),
    MaskType(), EmbeddingType(), ObjectType(),
)  # fmt: skip
SHIPPED: Mapping[str, RecordType] = MappingProxyType({kind.name: kind for kind in OURS})
