"""What selection by uncertainty and by features needs of a version of the target: computed once an image, then kept."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mad_backend.core.acquisition import AcquisitionScores
from mad_backend.core.records import Frame, ModelVersion, PoolImage
from mad_backend.engines.local import default_decode_threads
from mad_backend.errors import ImageError
from mad_backend.models.acquisition import Acquirer, Acquisition
from mad_backend.pool.features import FeatureStore, StoredFeatures, StoredInformation
from mad_backend.pool.ids import content_digest, image_keys
from mad_backend.pool.images import decode_frame
from training.project import Project

log = logging.getLogger(__name__)

PASSES = 20
"""Stochastic passes of BALD."""
CHUNK = 128
"""Images that are scored and written at once: what a kill costs."""


def acquisition_scores(
    project: Project,
    version: ModelVersion,
    images: Sequence[PoolImage],
    report: Callable[[str, int, int], None],
    *,
    bald: bool = False,
    chunk: int = CHUNK,
) -> AcquisitionScores:
    """Entropy, margin and embedding of every image under `version`, with `bald` mutual information too.

    In the order of `images`, no two of them the same, less those that cannot be read (`unreadable`). Only what is not
    in the cache is computed, a chunk at a time, which is kept before the next begins; several processes may do the same
    at once. Loads no model when nothing is missing. `report` gets (what is done, done, total). Raises ModelError for a
    kind of model that gives no probabilities, and what loading a model raises.
    """
    images = project.reader.with_etags(images)
    digests, unreadable = _digests(project, images)
    cache = _Cache(project.features, project.target_key(version), PASSES if bald else 0)
    no_information = "" if bald else "BALD was not asked for"
    if cache.lacking(digests):
        with closing(project.target(version)) as model:
            acquirer = Acquirer(model, cache.passes)
            if no_information := acquirer.no_information:
                cache = replace(cache, passes=0)
            lacking = cache.lacking(digests)
            todo = [image for image in images if image.image_id in lacking]
            for done, read in _decoded(project, todo, chunk):
                unreadable |= {
                    i: str(frame) for i, (_, frame) in read.items() if isinstance(frame, ImageError)
                }
                frames = {i: frame for i, (_, frame) in read.items() if isinstance(frame, Frame)}
                digests |= {i: digest for i, (digest, _) in read.items()}
                cache.keep({i: digests[i] for i in frames}, acquirer(list(frames.values())))
                report("entropy, margin and features", done, len(todo))
            log.info("%s: entropy, margin and features of %d images", version.version, len(todo))
    readable = {i: digest for i, digest in digests.items() if i not in unreadable}
    return cache.table(readable, no_information, unreadable)


@dataclass(frozen=True)
class _Cache:
    """What is kept of a model; images are given as image id -> content digest."""

    store: FeatureStore
    model: str
    passes: int

    def lacking(self, digests: Mapping[str, int]) -> set[str]:
        keys, contents = _columns(digests)
        found, _ = self.store.read(self.model, keys, contents)
        if self.passes:
            found &= self.store.read_information(self.model, self.passes, keys, contents)[0]
        return {image_id for image_id, is_there in zip(digests, found.tolist(), strict=True) if not is_there}

    def keep(self, digests: Mapping[str, int], found: Sequence[Acquisition]) -> None:
        if not found:
            return
        keys, contents = _columns(digests)
        entropy, margin = (
            np.array(v, np.float32) for v in zip(*((a.entropy, a.margin) for a in found), strict=True)
        )
        embeddings = np.stack([a.embedding for a in found])
        self.store.append(self.model, StoredFeatures(keys, contents, entropy, margin, embeddings))
        if self.passes:
            information = np.array([a.mutual_information for a in found], np.float32)
            self.store.append_information(
                self.model, self.passes, StoredInformation(keys, contents, information)
            )

    def table(
        self, digests: Mapping[str, int], no_information: str, unreadable: Mapping[str, str]
    ) -> AcquisitionScores:
        keys, contents = _columns(digests)
        _, features = self.store.read(self.model, keys, contents)
        information = None
        if self.passes:
            _, stored = self.store.read_information(self.model, self.passes, keys, contents)
            information = stored.mutual_information
        return AcquisitionScores(
            tuple(digests),
            features.entropy,
            features.margin,
            information,
            features.embeddings,
            no_information,
            unreadable,
        )


def _columns(digests: Mapping[str, int]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return image_keys(digests), np.fromiter(digests.values(), np.uint64, len(digests))


def _digests(project: Project, images: Sequence[PoolImage]) -> tuple[dict[str, int], dict[str, str]]:
    """Image id -> digest of its present content, in order, and image id -> reason of those that cannot be read.

    Only those are read of which a scan has not told the content, or whose source says that they changed.
    """
    ledger = project.open_ledger()
    known, _ = ledger.content(image_keys(image.image_id for image in images))

    def digest(image: PoolImage, is_known: bool, content: int) -> int | ImageError:
        if is_known:
            return content
        try:
            return content_digest(project.reader.read(image))
        except ImageError as error:
            return error

    with ThreadPoolExecutor(default_decode_threads(), thread_name_prefix="read") as readers:
        told = list(readers.map(digest, images, ledger.unchanged(images).tolist(), known.tolist()))
    ids = [image.image_id for image in images]
    return (
        {i: found for i, found in zip(ids, told, strict=True) if isinstance(found, int)},
        {i: str(found) for i, found in zip(ids, told, strict=True) if isinstance(found, ImageError)},
    )


def _decoded(
    project: Project, images: Sequence[PoolImage], chunk: int
) -> Iterator[tuple[int, dict[str, tuple[int, Frame | ImageError]]]]:
    """How many images are done with each chunk, and what is in it: image id -> content digest and frame.

    The next chunk is decoded while one is worked on.
    """

    def decode(image: PoolImage) -> tuple[int, Frame | ImageError]:
        try:
            data = project.reader.read(image)
            return content_digest(data), decode_frame(image, data, project.grid)
        except ImageError as error:
            return 0, error

    chunks = [images[start : start + chunk] for start in range(0, len(images), chunk)]
    with ThreadPoolExecutor(default_decode_threads(), thread_name_prefix="decode") as decoders:
        done, ahead = 0, decoders.map(decode, chunks[0]) if chunks else iter(())
        for own, following in zip(chunks, [*chunks[1:], []], strict=True):
            read = dict(zip((image.image_id for image in own), ahead, strict=True))
            ahead = decoders.map(decode, following)
            done += len(own)
            yield done, read
