"""The Docker API of one engine: all route tables behind one server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sampan
from sampan.api import codec
from sampan.api.routes import absent
from sampan.api.routes.containers import ContainerRoutes
from sampan.api.routes.distribution import DistributionRoutes
from sampan.api.routes.execs import ExecRoutes, ExecStart
from sampan.api.routes.files import CopyRequest, FileRoutes
from sampan.api.routes.history import HistoryRoutes
from sampan.api.routes.image_transfer import ImageTransferRoutes
from sampan.api.routes.images import ImageRoutes
from sampan.api.routes.leases import LeaseCreate, LeaseRoutes
from sampan.api.routes.networks import NetworkRoutes
from sampan.api.routes.policies import PolicyRoutes
from sampan.api.routes.space import SpaceRoutes
from sampan.api.routes.stats import StatsRoutes
from sampan.api.routes.streams import StreamRoutes
from sampan.api.routes.system import SystemRoutes
from sampan.api.routes.trees import TreeRoutes
from sampan.api.routes.volumes import VolumeCreate, VolumeRoutes
from sampan.api.server import ApiServer
from sampan.engine.model import CreateRequest, ExecConfig, UpdateConfig
from sampan.engine.network_plan import NetworkCreate

if TYPE_CHECKING:
    from sampan.engine.engine import Engine


def docker_api(engine: Engine) -> ApiServer:
    """The API server of `engine`, to be given to listeners."""
    codec.prepare(
        CopyRequest,
        CreateRequest,
        UpdateConfig,
        ExecConfig,
        ExecStart,
        VolumeCreate,
        LeaseCreate,
        NetworkCreate,
    )
    return ApiServer(
        [
            *SystemRoutes(engine).routes(),
            *ContainerRoutes(engine).routes(),
            *StreamRoutes(engine).routes(),
            *StatsRoutes(engine).routes(),
            *HistoryRoutes(engine).routes(),
            *ExecRoutes(engine).routes(),
            *ImageRoutes(engine).routes(),
            *TreeRoutes(engine).routes(),
            *FileRoutes(engine).routes(),
            *SpaceRoutes(engine).routes(),
            *ImageTransferRoutes(engine).routes(),
            *DistributionRoutes(engine).routes(),
            *VolumeRoutes(engine).routes(),
            *NetworkRoutes(engine).routes(),
            *PolicyRoutes(engine).routes(),
            *LeaseRoutes(engine).routes(),
            *absent.routes(),
        ],
        product=f"Sampan/{sampan.__version__} (linux)",
    )
