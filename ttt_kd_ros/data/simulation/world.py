"""Rays against a street: what each one hits first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_kd_ros.data.simulation.mesh import join
from ttt_kd_ros.data.simulation.street import Mover, Street
from ttt_kd_ros.data.simulation.track import Floats
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import IGNORE_LABEL

try:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
except ImportError as error:
    raise InputError("the simulator needs the package embreex; pip install 'ttt_kd_ros[simulation]'") from error

NOTHING = -1
"""Face of a ray that hits nothing."""
_FARTHEST = 1e6
_VISIBLE = 200.0
"""Movers farther away than this are left out of a scan [m]."""


@dataclass(frozen=True)
class Hits:
    """What rays hit first.

    Parameters
    ----------
    face
        (N,) int32 row of `World.faces`, `NOTHING` where there is none.
    distance
        (N,) float32 [m], infinite where nothing is hit.
    weights
        (N, 2) float32, share of the face's second and third corner in the place hit.
    normal
        (N, 3) float32 unit vector in the world frame, towards the side that the ray comes from.
    """

    face: NDArray[np.int32]
    distance: NDArray[np.float32]
    weights: NDArray[np.float32]
    normal: NDArray[np.float32]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which rays hit something (N,)."""
        return self.face >= 0


class Tracer:
    """Finds the first triangle of a mesh on a ray."""

    def __init__(self, corners: NDArray[np.float32]) -> None:
        self._scene = EmbreeScene()
        self._mesh = TriangleMesh(self._scene, np.ascontiguousarray(corners, dtype=np.float32))

    def cast(
        self, origins: NDArray[np.float32], directions: NDArray[np.float32], limits: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[Any]]:
        """``primID``, ``tfar``, ``u``, ``v`` and ``Ng`` of each ray, in Embree's words; `limits` (N,) end the rays."""
        if limits is None:
            limits = np.full(len(origins), np.inf, dtype=np.float32)
        return dict(self._scene.run(origins, directions, dists=np.minimum(limits, np.float32(_FARTHEST)), output=1))


class World:
    """A street at all times.

    Parameters
    ----------
    street
        The street.

    Attributes
    ----------
    faces
        Mesh of all faces: the static ones first, then those of each mover in its own frame.
    """

    def __init__(self, street: Street) -> None:
        self.street = street
        self.faces = join([street.static, *(mover.mesh for mover in street.movers)])
        sizes = [len(street.static), *(len(mover.mesh) for mover in street.movers)]
        self._windowed = np.asarray(self.faces.cells.any(axis=(1, 2)))
        self._first_face = np.cumsum(sizes)[:-1].tolist()
        self._static = Tracer(street.static.corners)
        self._tracers = [Tracer(mover.mesh.corners) for mover in street.movers]
        self._radius = [_radius(mover) for mover in street.movers]

    def sweep(self, origins: Floats, directions: Floats, times: Floats) -> Hits:
        """Cast rays that start at different times.

        Parameters
        ----------
        origins
            (G, 3) world coordinates of the sensor [m].
        directions
            (G, R, 3) unit vectors.
        times
            (G,) when the rays of each group are cast [s].

        Returns
        -------
        Hits of G * R rays
            Every ray meets the movers where they are at its own time.
        """
        size = directions.shape[1]
        start = np.repeat(origins, size, axis=0).astype(np.float32)
        along = np.ascontiguousarray(directions.reshape(-1, 3), dtype=np.float32)
        hits = _hits(self._static.cast(start, along), 0)
        axis = directions.mean(axis=1)
        axis /= np.linalg.norm(axis, axis=1, keepdims=True)
        spread = np.arccos(np.clip(np.einsum("grk,gk->gr", directions, axis).min(axis=1), -1.0, 1.0))
        for mover, tracer, radius, first in zip(
            self.street.movers, self._tracers, self._radius, self._first_face, strict=True
        ):
            if not self._near(mover, origins, times):
                continue
            T = mover.motion.poses(self.street.track, times)
            chosen = np.flatnonzero(_may_meet(T[:, :3, 3] - origins, radius, axis, spread))
            if not len(chosen):
                continue
            rows = (chosen[:, None] * size + np.arange(size)).ravel()
            rotation = T[chosen, :3, :3]
            local = np.repeat(np.einsum("gji,gj->gi", rotation, origins[chosen] - T[chosen, :3, 3]), size, axis=0)
            turned = np.einsum("gji,grj->gri", rotation, directions[chosen]).reshape(-1, 3)
            answer = tracer.cast(local.astype(np.float32), turned.astype(np.float32), hits.distance[rows])
            normals = answer["Ng"].reshape(len(chosen), size, 3)
            answer["Ng"] = np.einsum("gij,grj->gri", rotation, normals).reshape(-1, 3)
            _take_nearer(hits, rows, _hits(answer, first))
        return _facing(hits, along)

    def at(self, time: float) -> Snapshot:
        """The street at one time."""
        return Snapshot(self, time)

    def labels(self, hits: Hits) -> NDArray[np.uint8]:
        """Class (N,) of what was hit, 255 where nothing was."""
        return np.where(hits.valid, self.faces.label[hits.face], IGNORE_LABEL).astype(np.uint8)

    def facades(self, hits: Hits) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Which hits (M,) are on walls with windows, and their facade coordinates (M, 2)."""
        rows = np.flatnonzero(hits.valid & self._windowed[hits.face])
        corner, weights = self.faces.cells[hits.face[rows]], hits.weights[rows]
        u, v = weights[:, :1], weights[:, 1:]
        return rows, corner[:, 0] * (1.0 - u - v) + corner[:, 1] * u + corner[:, 2] * v

    def _near(self, mover: Mover, origins: Floats, times: Floats) -> bool:
        """Whether a mover is in sight at the first or last of the times."""
        ends = [0, -1]
        T = mover.motion.poses(self.street.track, times[ends])
        return bool(np.linalg.norm(T[:, :3, 3] - origins[ends], axis=1).min() < _VISIBLE)


class Snapshot:
    """A street at one time.

    Parameters
    ----------
    world
        The street.
    time
        [s].
    """

    def __init__(self, world: World, time: float) -> None:
        self._static = world._static
        self._first = len(world.street.static)
        corners = [np.zeros((0, 3, 3))]
        for mover in world.street.movers:
            T = mover.motion.poses(world.street.track, np.array([time]))[0]
            corners.append(mover.mesh.corners @ T[:3, :3].T + T[:3, 3])
        self.moved_corners = np.concatenate(corners).astype(np.float32)
        self._moving = Tracer(self.moved_corners) if len(self.moved_corners) else None

    def cast(self, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> Hits:
        """First hits of rays: origins (N, 3) [m] and unit directions (N, 3) in the world frame."""
        hits = _hits(self._static.cast(origins, directions), 0)
        if self._moving is not None:
            rows = np.arange(len(origins))
            _take_nearer(hits, rows, _hits(self._moving.cast(origins, directions, hits.distance), self._first))
        return _facing(hits, directions)

    def blocked(self, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each ray hits anything (N,)."""
        found = self._static.cast(origins, directions)["primID"] >= 0
        if self._moving is not None:
            free = np.flatnonzero(~found)
            found[free] = self._moving.cast(origins[free], directions[free])["primID"] >= 0
        return np.asarray(found)


def _radius(mover: Mover) -> float:
    return float(np.linalg.norm(mover.mesh.corners.reshape(-1, 3), axis=1).max())


def _may_meet(offset: Floats, radius: float, axis: Floats, spread: Floats) -> NDArray[np.bool_]:
    """Which groups of rays could touch a ball at `offset` (G, 3) from their origins."""
    distance = np.linalg.norm(offset, axis=1)
    inside = distance <= 1.05 * radius
    angle = np.arccos(np.clip(np.einsum("gk,gk->g", offset, axis) / np.maximum(distance, 1e-6), -1.0, 1.0))
    near = angle <= spread + np.arcsin(np.clip(radius / np.maximum(distance, radius), -1.0, 1.0))
    return np.asarray(inside | near)


def _hits(answer: dict[str, NDArray[Any]], first_face: int) -> Hits:
    face = answer["primID"]
    valid = face >= 0
    return Hits(
        np.where(valid, face + np.int32(first_face), NOTHING).astype(np.int32),
        np.where(valid, answer["tfar"], np.inf).astype(np.float32),
        np.stack([answer["u"], answer["v"]], axis=1),
        np.ascontiguousarray(answer["Ng"], dtype=np.float32),
    )


def _take_nearer(hits: Hits, rows: NDArray[np.int64], other: Hits) -> None:
    nearer = other.distance < hits.distance[rows]
    chosen = rows[nearer]
    hits.face[chosen] = other.face[nearer]
    hits.distance[chosen] = other.distance[nearer]
    hits.weights[chosen] = other.weights[nearer]
    hits.normal[chosen] = other.normal[nearer]


def _facing(hits: Hits, directions: NDArray[np.float32]) -> Hits:
    normal = hits.normal
    length = np.sqrt(np.einsum("nk,nk->n", normal, normal))
    away = np.where(np.einsum("nk,nk->n", normal, directions) > 0, -1.0, 1.0)
    normal *= (away / np.maximum(length, 1e-20))[:, None].astype(np.float32)
    return hits
