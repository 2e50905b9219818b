r"""
Procedural training clips: moving scenes of dead leaves.

Pictures of opaque shapes that hide one another, with sizes that follow a power law, share
the statistics of natural images :footcite:p:`lee2001occlusion`, and networks trained on
nothing else restore photographs well :footcite:p:`achddou2021synthetic`. A clip is made
in two steps.

*Sheets* are still pictures of such leaves, painted from the large to the small: ellipses,
rectangles, polygons, rings, ragged crowns, thin bars, and clusters of small leaves,
scattered like foliage, on a lattice like windows and bricks, or in rows like writing. Each
leaf has a colour of low chroma, a shading gradient, a soft shadow and a texture (flat,
fractal noise, foliage, stripes, grids, blocks). All clips of a collection share
``sheets.NUM_SHEETS`` sheets.

*Scenes* put one sheet behind, two times in five tilted like a wall or a street, and cut
a few objects out of others. The camera pans, sways, zooms and turns, by up to 5 pixels per
frame; nearer objects follow it faster (parallax) and move by themselves, by up to 8; some
scenes stand still. Frames are sampled at twice their resolution and averaged, so that
edges are sharp and free of aliasing. Exposure, contrast, tint, lens blur, motion blur and
sensor grain differ from clip to clip.

Everything is a function of ``(seed, index)``: frames of a longer clip need not begin with
those of a shorter one.
"""

from __future__ import annotations

from deepinv_lvtino.datasets.dead_leaves.scenes import dead_leaves_clip
from deepinv_lvtino.datasets.dead_leaves.videos import (
    DeadLeavesVideos,
    dead_leaves_pool,
)

__all__ = ["DeadLeavesVideos", "dead_leaves_clip", "dead_leaves_pool"]
