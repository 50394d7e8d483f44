"""Measurements for face recognition on drawn faces: four losses, a pipeline with and without its stages, mistakes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pipeline.experiment import experiment
from snippets.face_recognition import (
    ArcFace,
    CosFace,
    SphereFace,
    align_face,
    arcface_template,
    cmc,
    cosine_scores,
    equal_error_rate,
    flip_fuse,
    identify,
    iou_nms,
    kfold_threshold,
    open_set_rate,
    pool_templates,
    random_pose,
    roc,
    similarity_transform,
    softmax_logits,
    tar_at_far,
    threshold_at_far,
    turn_face,
    umeyama,
)

_CANVAS, _CROP, _DIM = 48, 32, 32
_STEPS, _BATCH, _PEOPLE, _PHOTOS = 300, 32, 100, 10
_TESTED = 80  # people of the test, and as many others to choose thresholds on
_FAR = 0.01
_LANDMARK_NOISE = 0.7  # pixels, in training: about what the detector gets wrong
_COLLECTED = {"yaw": 12.0, "roll": 40.0, "light": 0.5, "expression": 1.0, "occlusion": 0.1}
_EVERYDAY = {"yaw": 45.0, "roll": 40.0, "light": 0.5, "expression": 1.0, "occlusion": 0.1}

# --- the toy world -------------------------------------------------------------------------------

# What makes a person, with its range; lengths in half head widths, shades 0 to 1.
_TRAITS = {
    "width": (0.92, 1.12),
    "height": (1.2, 1.45),
    "jaw": (1.7, 3.2),
    "eye_x": (0.36, 0.48),
    "eye_y": (-0.22, -0.04),
    "eye_width": (0.13, 0.2),
    "eye_height": (0.07, 0.14),
    "iris": (0.05, 0.1),
    "brow_lift": (0.17, 0.3),
    "brow_width": (0.14, 0.26),
    "brow_height": (0.02, 0.065),
    "brow_tilt": (-0.35, 0.35),
    "nose_length": (0.34, 0.56),
    "nose_width": (0.09, 0.2),
    "mouth_y": (0.68, 0.9),
    "mouth_width": (0.24, 0.42),
    "lips": (0.035, 0.09),
    "hairline": (-0.95, -0.55),
    "fringe": (-0.5, 0.5),
    "hair_volume": (0.04, 0.25),
    "hair_length": (-0.6, 0.9),
    "ears": (0.0, 0.24),
    "beard": (-0.5, 0.5),
    "mole_x": (-0.6, 0.6),
    "mole_y": (0.1, 0.9),
    "skin": (0.45, 0.9),
    "skin_hue": (-0.08, 0.08),
    "hair": (0.05, 0.6),
    "hair_hue": (-0.1, 0.2),
    "eye_hue": (0.0, 1.0),
}

People = dict[str, Tensor]
Photos = dict[str, Tensor]


def _say(words: str) -> None:
    print(f"face_recognition: {words}", file=sys.stderr, flush=True)


def _people(count: int, generator: torch.Generator) -> People:
    draws = torch.rand(len(_TRAITS), count, generator=generator)
    return {
        name: low + (high - low) * draw
        for (name, (low, high)), draw in zip(_TRAITS.items(), draws, strict=True)
    }


def _conditions(
    count: int,
    generator: torch.Generator,
    yaw: float = 0.0,
    roll: float = 0.0,
    light: float = 0.0,
    expression: float = 0.0,
    occlusion: float = 0.0,
    jitter: float = 3.0,
    fixed_yaw: float | None = None,
    occluder: float = 0.0,
) -> dict[str, Tensor]:
    """How each picture is taken. Limits: yaw and roll in degrees, light and expression 0 to 1, jitter in
    pixels; occlusion is a probability. fixed_yaw instead of a limit; occluder: 0 any or none, otherwise
    always 1 sunglasses, 2 mask, 3 bar."""

    def spread(limit: float) -> Tensor:
        return limit * (2 * torch.rand(count, generator=generator) - 1)

    middle = (_CANVAS - 1) / 2
    hidden = torch.rand(count, generator=generator) < occlusion
    drawn = spread(math.radians(yaw))
    kind = torch.randint(1, 4, (count,), generator=generator)
    return {
        "yaw": drawn if fixed_yaw is None else torch.full_like(drawn, math.radians(fixed_yaw)),
        "pitch": spread(math.radians(yaw / 3)),
        "roll": spread(math.radians(roll)),
        "x": middle + spread(jitter),
        "y": middle + spread(jitter),
        "radius": 12.0 + spread(1.5),
        "light_x": spread(light),
        "light_y": spread(light),
        "gain": 1 + spread(light / 2),
        "tint": spread(light / 4),
        "smile": spread(expression),
        "open": spread(expression).clamp(min=0),
        "raised": spread(expression),
        "closed": spread(expression).clamp(min=0),
        "occluder": torch.full_like(kind, int(occluder)) if occluder else torch.where(hidden, kind, 0),
        "bar": spread(0.8),
        "bar_shade": torch.rand(count, generator=generator),
    }


class _Pencil:
    """Draws soft-edged shapes on a batch of pictures, in coordinates of the upright head."""

    def __init__(self, people: People, how: dict[str, Tensor]) -> None:
        self.p = {name: value[:, None, None] for name, value in people.items()}
        self.c = {name: value[:, None, None] for name, value in how.items()}
        self.radius = self.c["radius"]
        line = torch.arange(_CANVAS, dtype=torch.float32)
        dx, dy = line - self.c["x"], line[:, None] - self.c["y"]
        cos, sin = self.c["roll"].cos() / self.radius, self.c["roll"].sin() / self.radius
        self.u, self.v = cos * dx + sin * dy, cos * dy - sin * dx  # (B, S, S), in half head widths
        self.cos_yaw, self.sin_yaw = self.c["yaw"].cos(), self.c["yaw"].sin()

    def within(self, distance: Tensor) -> Tensor:
        """Opacity of what lies where the distance to its edge is negative; the edge is a pixel wide."""
        return (0.5 - distance * self.radius).clamp(0, 1)

    def project(self, x: Tensor, y: Tensor, lift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Where the point above (x, y) of the face is seen, and how much narrower things look there."""
        width, height = self.p["width"], self.p["height"]
        z = (1 - (x / width) ** 2 - (y / height) ** 2).clamp(min=0.05).sqrt()
        slope = -x / (width**2 * z)
        z = z + lift
        forward = z * self.cos_yaw - x * self.sin_yaw
        narrow = (self.cos_yaw + slope * self.sin_yaw).clamp(0.08, 1.3)
        pitch = self.c["pitch"]
        return x * self.cos_yaw + z * self.sin_yaw, y * pitch.cos() - forward * pitch.sin(), narrow

    def ellipse(self, x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
        distance = (((self.u - x) / width) ** 2 + ((self.v - y) / height) ** 2 + 1e-9).sqrt() - 1
        return self.within(distance * torch.minimum(width, height))


def _blend(picture: Tensor, opacity: Tensor, color: Tensor) -> Tensor:
    return picture + opacity[:, None] * (color - picture)


def _color(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    return torch.stack([red, green, blue], 1)  # (B, 3, 1, 1)


def _gray(shade: float, like: Tensor) -> Tensor:
    return torch.full_like(_color(like, like, like), shade)


def _draw(people: People, how: dict[str, Tensor], generator: torch.Generator) -> Photos:
    """Pictures (B, 3, 48, 48), what head and hair cover (B, 48, 48), landmarks (B, 5, 2), boxes (B, 4)."""
    pencil = _Pencil(people, how)
    p, c, u, v, within, ellipse = pencil.p, pencil.c, pencil.u, pencil.v, pencil.within, pencil.ellipse
    none = torch.zeros_like(p["width"])
    skin = _color(p["skin"], p["skin"] * (0.8 + p["skin_hue"]), p["skin"] * (0.66 - p["skin_hue"]))
    warm = p["hair_hue"]
    hair = _color(p["hair"] + warm.clamp(min=0), p["hair"], 0.7 * p["hair"] - warm.clamp(max=0))
    outline = ((p["width"] * pencil.cos_yaw) ** 2 + pencil.sin_yaw**2).sqrt()  # of the turned head

    shades = torch.rand(2, len(none), 3, 1, 1, generator=generator)
    ramp = torch.linspace(-0.5, 0.5, _CANVAS)
    picture = 0.15 + 0.7 * shades[0] + 0.5 * (shades[1] - 0.5) * ramp.expand(_CANVAS, -1)

    # Hair behind the head, then ears, head, beard and the hair in front.
    volume, length = p["hair_volume"], p["hair_length"]
    crown = ellipse(-0.15 * pencil.sin_yaw, none - 0.12, outline + volume, p["height"] + volume)
    crown = crown * within(v - length.clamp(max=0))
    sides = within((u + 0.15 * pencil.sin_yaw).abs() - outline - volume) * (v > -0.1) * within(v - length)
    behind = torch.maximum(crown, sides * (length > 0))
    picture = _blend(picture, behind, hair)
    power = torch.where(v > 0, p["jaw"], 2.0)
    level = ((u / outline).abs() + 1e-6) ** power + ((v / p["height"]).abs() + 1e-6) ** power
    head = within((level ** (1 / power) - 1) * outline)
    cover = torch.maximum(head, behind)
    for side in (-1, 1):
        seen = (0.6 - 1.2 * side * pencil.sin_yaw).clamp(0, 1)  # the ear that turns away vanishes
        size = p["ears"].clamp(min=0.01)
        ear = ellipse(
            side * (p["width"] * pencil.cos_yaw + 0.03),
            none + 0.1,
            (0.7 * size * seen).clamp(min=0.01),
            1.3 * size,
        )
        ear = ear * (p["ears"] > 0.06)
        picture, cover = _blend(picture, ear, 0.85 * skin), torch.maximum(cover, ear)
    round_shading = 1 - 0.25 * (u / outline - 0.3 * pencil.sin_yaw) ** 2
    picture = _blend(picture, head, skin * round_shading[:, None])
    mouth_x, mouth_y, mouth_narrow = pencil.project(none, p["mouth_y"])
    chin = (1.38 + 4 * (v - mouth_y) - (u - mouth_x) ** 2).clamp(0, 1)
    picture = _blend(picture, p["beard"].clamp(min=0) * head * chin, hair)
    front_x, front_y, _ = pencil.project(none, p["hairline"], 0.05)
    aside = u - front_x
    picture = _blend(picture, head * within(v - front_y - p["fringe"] * aside + 0.25 * aside**2), hair)

    landmarks = []
    for side in (-1, 1):
        x, y, narrow = pencil.project(side * p["eye_x"], p["eye_y"])
        width = p["eye_width"] * narrow
        height = (p["eye_height"] * (1 - 0.85 * c["closed"])).clamp(min=0.015)
        white = ellipse(x, y, width, height)
        picture = _blend(picture, ellipse(x, y, width + 0.035 * narrow, height + 0.035), 0.45 * skin)
        picture = _blend(picture, white, _gray(0.95, none))
        hue = p["eye_hue"]
        iris = _color(0.35 - 0.25 * hue, 0.2 + 0.2 * hue, 0.1 + 0.5 * hue)
        picture = _blend(picture, white * ellipse(x, y, p["iris"] * narrow, p["iris"]), iris)
        landmarks.append((x, y))
        x, y, narrow = pencil.project(side * p["eye_x"], p["eye_y"] - p["brow_lift"] - 0.06 * c["raised"])
        along = (u - x).abs() - p["brow_width"] * narrow
        across = (v - y - side * p["brow_tilt"] * (u - x)).abs() - p["brow_height"]
        picture = _blend(picture, within(along) * within(across), 0.7 * hair)

    bridge_x, bridge_y, _ = pencil.project(none, p["eye_y"])
    nose_x, nose_y, narrow = pencil.project(none, p["eye_y"] + p["nose_length"], 0.22)
    part = ((v - bridge_y) / (nose_y - bridge_y).clamp(min=0.05)).clamp(0, 1)
    flank = (u - bridge_x - (nose_x - bridge_x) * part).abs() - (0.03 + 0.7 * p["nose_width"] * part) * narrow
    picture = _blend(picture, 0.5 * within(flank) * (v > bridge_y) * within(v - nose_y), 0.7 * skin)
    picture = _blend(picture, ellipse(nose_x, nose_y, p["nose_width"] * narrow, none + 0.05), 0.55 * skin)
    landmarks.append((nose_x, nose_y))

    half, bend = p["mouth_width"] * (1 + 0.2 * c["smile"]), 0.13 * c["smile"]
    place = ((u - mouth_x) / (half * mouth_narrow)) ** 2
    off, taper = (v - mouth_y - bend * (1 - 2 * place)).abs(), (1 - place).clamp(min=0).sqrt()
    gape = 0.12 * c["open"]
    lips = within(off - taper * (p["lips"] + gape)) * (taper > 0)
    red = _color(0.7 * p["skin"] + 0.1, 0.35 * p["skin"], 0.35 * p["skin"])
    picture = _blend(picture, lips, red)
    picture = _blend(picture, within(off - taper * gape) * (taper > 0) * (gape > 0.012), _gray(0.1, none))
    landmarks += [pencil.project(side * half, p["mouth_y"] - bend)[:2] for side in (-1, 1)]
    x, y, narrow = pencil.project(p["mole_x"], p["mole_y"])
    picture = _blend(picture, ellipse(x, y, 0.07 * narrow, none + 0.07), 0.3 * skin)

    glasses = within((v - bridge_y).abs() - 0.05) * ((u - bridge_x).abs() < outline)
    for side in (-1, 1):
        x, y, narrow = pencil.project(side * p["eye_x"], p["eye_y"], 0.05)
        glasses = torch.maximum(glasses, ellipse(x, y, 0.3 * narrow, none + 0.24))
    picture = _blend(picture, glasses * (c["occluder"] == 1), _gray(0.06, none))
    mask = head * within(nose_y - 0.08 - v)
    picture = _blend(picture, mask * (c["occluder"] == 2), _color(none + 0.75, none + 0.85, none + 0.9))
    bar = within((v - c["bar"] - 0.6 * u).abs() - 0.16) * cover
    picture = _blend(picture, bar * (c["occluder"] == 3), _color(*3 * [c["bar_shade"]]))

    light = c["gain"] * (1 + c["light_x"] * u / 1.2 + c["light_y"] * v / 1.4).clamp(min=0.15)
    picture = picture * light[:, None] * _color(1 + c["tint"], none + 1, 1 - c["tint"])
    picture = picture + 0.025 * torch.randn(picture.shape, generator=generator)
    radius, roll, flat = how["radius"], how["roll"], outline[:, 0, 0]
    center = torch.stack([how["x"], how["y"]], -1)
    points = torch.stack([torch.stack([x[:, 0, 0], y[:, 0, 0]], -1) for x, y in landmarks], 1)  # (B, 5, 2)
    cos, sin = radius * roll.cos(), radius * roll.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    wide = ((cos * flat) ** 2 + (sin * people["height"]) ** 2).sqrt()
    tall = ((sin * flat) ** 2 + (cos * people["height"]) ** 2).sqrt()
    reach = torch.stack([wide, tall], -1)
    return {
        "images": picture.clamp(0, 1),
        "cover": cover,
        "landmarks": points @ turn.mT + center[:, None],
        "boxes": torch.cat([center - reach, center + reach], -1),
    }


def _photos(people: People, labels: Tensor, generator: torch.Generator, **limits: float) -> Photos:
    """A photo of each person that the labels name; drawn in small parts, which fit the cache."""
    parts = []
    for chosen in labels.split(16):
        how = _conditions(len(chosen), generator, **limits)
        part = _draw({name: value[chosen] for name, value in people.items()}, how, generator)
        parts.append(part | {"how_" + name: value for name, value in how.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | {"labels": labels}


# --- from a photo to an embedding ----------------------------------------------------------------


def _network(dim: int = _DIM) -> nn.Sequential:
    """A crop (B, 3, 32, 32) with values 0 to 1 to an embedding (B, dim)."""
    layers: list[nn.Module] = []
    for before, after in ((3, 24), (24, 48), (48, 96)):
        layers += [
            nn.Conv2d(before, after, 3, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    layers += [nn.Flatten(), nn.Linear(96 * 16, dim, bias=False), nn.BatchNorm1d(dim)]
    return nn.Sequential(*layers)


def _normal(crops: Tensor) -> Tensor:
    return (4 * crops - 2).contiguous(memory_format=torch.channels_last)


def _upright(boxes: Tensor) -> Tensor:
    """The template's landmarks (B, 5, 2) laid into the square around each box (B, 4)."""
    center = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2  # (B, 1, 2)
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1)[:, None, None] / 2
    return center + half * (2 * (arcface_template(_CROP) + 0.5) / _CROP - 1)


def _box_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """What a pipeline without alignment sees: the box, made square, upright."""
    return align_face(images, _upright(boxes), _CROP)


class _Softmax(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, dim), dim=1))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return softmax_logits(embeddings, self.weight)


_HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "softmax": _Softmax,
    "sphereface": lambda dim, classes: SphereFace(dim, classes, margin=4),
    "cosface": lambda dim, classes: CosFace(dim, classes, _SCALE, margin=0.2),
    "arcface": lambda dim, classes: ArcFace(dim, classes, _SCALE, margin=0.3),
}
_SCALE = 8.0  # few people need a small one, see `scale_bound` in `losses`


def _fit(
    photos: Photos,
    names: Sequence[str],
    seed: int,
    steps: int,
    augmented: bool = True,
    aligned: bool = True,
    dim: int = _DIM,
    rate: float = 2e-2,
) -> dict[str, tuple[nn.Sequential, nn.Module]]:
    """Train for each of the heads a network and the head on photos with labels 0 to C - 1.

    All start from the same network and see the same batches; crops are made once for all of them, for
    turning and aligning faces costs more than half of what training a network on them does.
    """
    generator = torch.Generator().manual_seed(7000 + seed)
    images, landmarks, boxes, labels = (photos[key] for key in ("images", "landmarks", "boxes", "labels"))
    fitted: dict[str, tuple[nn.Sequential, nn.Module]] = {}
    for name in names:
        torch.manual_seed(seed)
        fitted[name] = _network(dim), _HEADS[name](dim, int(labels.max()) + 1)
    # One optimizer serves all: AdamW treats each number for itself, and so the networks stay independent.
    parameters = [p for modules in fitted.values() for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=5e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 1))
    for step in range(steps):
        batch = torch.randint(len(labels), (_BATCH,), generator=generator)
        x, points, truth = images[batch], landmarks[batch], labels[batch]
        if augmented:
            x, points = random_pose(x, points, generator, max_yaw=40, max_pitch=15, max_roll=0)
        if aligned:
            noise = torch.randn(points.shape, generator=generator)
            crops = align_face(x, points + _LANDMARK_NOISE * noise, _CROP)
        else:
            noise = torch.randn(_BATCH, 4, generator=generator)
            crops = _box_crop(x, boxes[batch] + _LANDMARK_NOISE * noise)
        mirrored = torch.rand(_BATCH, 1, 1, 1, generator=generator) < 0.5
        crops = _normal(torch.where(mirrored, crops.flip(3), crops))
        found = []
        for model, head in fitted.values():
            if isinstance(head, SphereFace):
                head.blend = max(5.0, 1000 / (1 + step))
            found.append(F.cross_entropy(head(model(crops), truth), truth))
        optimizer.zero_grad()
        torch.stack(found).sum().backward()
        optimizer.step()
        schedule.step()
        if step % 150 == 149:
            worth = ", ".join(f"{name} {loss.item():.2f}" for name, loss in zip(names, found, strict=True))
            _say(f"seed {seed}, step {step + 1} of {steps}, loss {worth}")
    return {name: (model.eval(), head) for name, (model, head) in fitted.items()}


@torch.no_grad()
def _embed(model: nn.Module, crops: Tensor) -> Tensor:
    return torch.cat([model(_normal(part)) for part in crops.split(160)])


def _noisy_crops(photos: Photos, generator: torch.Generator, noise: float = _LANDMARK_NOISE) -> Tensor:
    """Crops aligned by the true landmarks, each moved a little, as a detector would."""
    landmarks = photos["landmarks"]
    return align_face(
        photos["images"], landmarks + noise * torch.randn(landmarks.shape, generator=generator), _CROP
    )


def _training_photos(
    seed: int,
    photos: int = _PHOTOS,
    everyday: bool = False,
    change: Callable[[People], People] | None = None,
    people: int | None = None,
) -> Photos:
    """The people of a training: the photos that were collected of them, or later ones, of every day."""
    people = _PEOPLE if people is None else people
    generator = torch.Generator().manual_seed(seed)
    persons = _people(people, generator)
    labels = torch.arange(people).repeat_interleave(photos)
    return _photos(
        change(persons) if change else persons, labels, generator, **(_EVERYDAY if everyday else _COLLECTED)
    )


def _everyday_photos() -> Photos:
    """Photos with known landmarks, heads turned as every day, of yet other people."""
    generator = torch.Generator().manual_seed(80_000)
    labels = torch.arange(_PEOPLE).repeat_interleave(_PHOTOS)
    return _photos(_people(_PEOPLE, generator), labels, generator, **_EVERYDAY)


def _strangers(seed: int, people: int, photos: int) -> tuple[People, Photos]:
    """People of no training, each photographed every day."""
    generator = torch.Generator().manual_seed(90_000 + seed)
    persons = _people(people, generator)
    labels = torch.arange(people).repeat_interleave(photos)
    return persons, _photos(persons, labels, generator, **_EVERYDAY)


# --- measuring -----------------------------------------------------------------------------------


def _pair_scores(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of all pairs of photos, and whether they show one person."""
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    return cosine_scores(embeddings, embeddings)[first, second], labels[first] == labels[second]


def _against_gallery(embeddings: Tensor, labels: Tensor, enrolled: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """The first photos of each person, pooled, are the gallery; the second half of them are the probes.

    Gives scores (P, G), labels of the probes (P,) and of the gallery (G,).
    """
    people = int(labels.max()) + 1
    by_person = embeddings.unflatten(0, (people, -1))  # (G, photos, D)
    half = by_person.shape[1] // 2
    gallery = pool_templates(by_person[:, :enrolled])
    probes = labels.unflatten(0, (people, -1))[:, half:].flatten()
    return cosine_scores(by_person[:, half:].flatten(0, 1), gallery), probes, torch.arange(people)


def _scores(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """tar, tar_strict (at a tenth of the FAR), eer of all pairs; template_tar, single_tar, rank1,
    template_rank1 and open_set of probes against a gallery of one or several photos."""
    scores, same = _pair_scores(embeddings, labels)
    result = {
        "tar": float(tar_at_far(scores, same, _FAR)),
        "tar_strict": float(tar_at_far(scores, same, _FAR / 10)),
        "eer": float(equal_error_rate(scores, same)),
    }
    enrolled = len(labels) // (int(labels.max()) + 1) // 2
    for name, number in (("single", 1), ("template", enrolled)):
        table, probes, gallery = _against_gallery(embeddings, labels, number)
        result[f"{name}_tar"] = float(tar_at_far(table, probes[:, None] == gallery, _FAR))
        result[f"{name}_rank1"] = float(cmc(table, probes, gallery)[0])
        known = gallery[: len(gallery) // 2]  # only half of them are enrolled, the others are strangers
        result[f"{name}_open_set"] = float(open_set_rate(table[:, known], probes, known, _OPEN_FAR))
    return result


_OPEN_FAR = 0.05


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means of several runs, and under <key>_spread the standard deviations."""
    means = {key: fmean(run[key] for run in runs) for key in runs[0]}
    return means | {f"{key}_spread": _spread([run[key] for run in runs]) for key in runs[0]}


def _flat(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The cells of a table as single values <row>_<column>."""
    return {f"{row[name]}_{key}": value for row in rows for key, value in row.items() if key != name}


# --- losses --------------------------------------------------------------------------------------

_NUISANCES: dict[str, dict[str, float]] = {
    "none": {},
    "yaw": {"yaw": 45.0},
    "roll": {"roll": 40.0},
    "light": {"light": 0.8},
    "expression": {"expression": 1.0},
    "sunglasses": {"occluder": 1.0},
    "mask": {"occluder": 2.0},
    "bar": {"occluder": 3.0},
    "everyday": _EVERYDAY,
}


@experiment
def losses(steps: int = _STEPS, seeds: Sequence[int] = (0, 1, 2), people: int = _TESTED) -> dict[str, Any]:
    """Softmax, SphereFace, CosFace and ArcFace: the same network, photos and steps; people never seen before.

    Each seed changes training people, initial weights and batches; the test people stay. Landmarks are
    the true ones with noise.
    rows: loss; tar, tar_strict (at FAR 1 % and 0.1 %, all pairs of single photos), eer, single_rank1
    (one photo of each person enrolled), single_open_set (half of the people enrolled, 5 % of strangers
    taken for somebody), template_... (four photos enrolled), threshold (at FAR 1 %, chosen on other
    people), held_far, held_tar (what that threshold gives in the test), constant_far, constant_tar
    (with a threshold of 0.6), and all with _spread. <loss>_<column>: the same as single values.
    seed_rows: loss, seed and the columns.
    best_loss, worst_loss: by tar; tar_range.  held_far_low, held_far_high, constant_far_low,
    constant_far_high: over losses and seeds.
    nuisance_rows: nuisance; <loss> (TAR at the chosen threshold, photos with this nuisance alone against
    photos without any; mean over the seeds), <loss>_far. nuisance_<nuisance>_<loss>.
    roc_far, roc_<loss>, roc_<loss>_low, roc_<loss>_high (arrays): TAR at each FAR, mean and range of seeds.
    scale_bound: the least scale with which 100 classes in perfect places reach a mean probability of 0.9
    (Wang et al. 2018, equation 6).
    seeds, steps, people, training_people, training_photos, batch, dim, scale, genuine, impostor (pairs).
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    test, held = _strangers(0, people, 8)[1], _strangers(1, people, 8)[1]
    crops = {name: _noisy_crops(photos, generator) for name, photos in (("test", test), ("held", held))}
    labels = test["labels"]
    persons = _people(people, generator)
    faces = {
        name: _noisy_crops(_photos(persons, torch.arange(people), generator, **limits), generator)
        for name, limits in (("reference", {}), *_NUISANCES.items())
    }
    grid = torch.logspace(-4, 0, 81, dtype=torch.float64)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _HEADS}
    curves: dict[str, list[Tensor]] = {name: [] for name in _HEADS}
    by_nuisance: dict[str, dict[str, list[float]]] = {name: {} for name in _NUISANCES}
    for seed in seeds:
        for name, (model, _) in _fit(_training_photos(seed), list(_HEADS), seed, steps).items():
            embeddings = _embed(model, crops["test"])
            threshold = threshold_at_far(*_pair_scores(_embed(model, crops["held"]), held["labels"]), _FAR)
            scores, same = _pair_scores(embeddings, labels)
            found[name].append(
                _scores(embeddings, labels)
                | {
                    "threshold": float(threshold),
                    "held_far": float((scores[~same] >= threshold).double().mean()),
                    "held_tar": float((scores[same] >= threshold).double().mean()),
                    "constant_far": float((scores[~same] >= 0.6).double().mean()),
                    "constant_tar": float((scores[same] >= 0.6).double().mean()),
                }
            )
            far, tar, _ = roc(scores, same)
            curves[name].append(tar[torch.searchsorted(far, grid, right=True) - 1])
            reference = _embed(model, faces["reference"])
            for nuisance, columns in by_nuisance.items():
                table = cosine_scores(_embed(model, faces[nuisance]), reference) >= threshold
                own = torch.eye(people, dtype=torch.bool)
                columns.setdefault(name, []).append(float(table[own].double().mean()))
                columns.setdefault(f"{name}_far", []).append(float(table[~own].double().mean()))
    rows = [{"loss": name} | _summary(runs) for name, runs in found.items()]
    nuisance_rows = [
        {"nuisance": nuisance} | {key: fmean(values) for key, values in columns.items()}
        for nuisance, columns in by_nuisance.items()
    ]
    result: dict[str, Any] = _flat(rows, "loss") | {"rows": rows, "nuisance_rows": nuisance_rows}
    result |= {f"nuisance_{key}": value for key, value in _flat(nuisance_rows, "nuisance").items()}
    for name, stack in curves.items():
        values = torch.stack(stack)
        result |= {
            f"roc_{name}": values.mean(0).numpy(),
            f"roc_{name}_low": values.amin(0).numpy(),
            f"roc_{name}_high": values.amax(0).numpy(),
        }
    for key in ("held_far", "constant_far"):
        values_of = [run[key] for runs in found.values() for run in runs]
        result |= {f"{key}_low": min(values_of), f"{key}_high": max(values_of)}
    ordered = sorted(rows, key=lambda row: float(row["tar"]))
    genuine = int(same.sum())
    return result | {
        "roc_far": grid.numpy(),
        "seed_rows": [
            {"loss": name, "seed": seed} | run
            for name, runs in found.items()
            for seed, run in zip(seeds, runs, strict=True)
        ],
        "best_loss": ordered[-1]["loss"],
        "worst_loss": ordered[0]["loss"],
        "tar_range": float(ordered[-1]["tar"]) - float(ordered[0]["tar"]),
        "seeds": len(seeds),
        "steps": steps,
        "people": people,
        "training_people": _PEOPLE,
        "training_photos": _PEOPLE * _PHOTOS,
        "batch": _BATCH,
        "dim": _DIM,
        "scale": _SCALE,
        "scale_bound": (_PEOPLE - 1) / _PEOPLE * math.log((_PEOPLE - 1) * 0.9 / 0.1),
        "genuine": genuine,
        "impostor": same.numel() - genuine,
    }


# --- the pipeline, stage by stage ----------------------------------------------------------------

_SCENE = 2 * _CANVAS
_CELL = 8


class _Detector(nn.Module):
    """Pictures (B, 3, H, W) to a score and a box for every cell of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, kernel, stride in (
            (3, 16, 5, 2),
            (16, 32, 3, 2),
            (32, 48, 3, 2),
            (48, 48, 3, 1),
            (48, 48, 3, 1),
        ):
            layers += [
                nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(48, 5, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, N) and boxes (B, N, 4) in pixels."""
        out = self.layers(_normal(pictures)).permute(0, 2, 3, 1)  # (B, h, w, 5)
        cells = _cells(*out.shape[1:3]).repeat(1, 2)  # (N, 4)
        return out[..., 0].flatten(1), cells + 16 * out[..., 1:].flatten(1, 2)


def _cells(height: int, width: int) -> Tensor:
    """Centers of the detector's cells, (N, 2) pixels, x then y."""
    y, x = (_CELL * torch.arange(n) + (_CELL - 1) / 2 for n in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def _scenes(people: People, count: int, generator: torch.Generator) -> Photos:
    """Pictures (B, 3, 96, 96) with up to four people before a cluttered wall.

    present (B, 4), labels (B, 4), boxes (B, 4, 4), landmarks (B, 4, 5, 2); at least one is present.
    """
    labels = torch.randint(len(people["width"]), (count, 4), generator=generator)
    present = torch.rand(count, 4, generator=generator) < 0.6
    present[:, 0] |= ~present.any(1)
    faces = _photos(people, labels.flatten(), generator, jitter=5.0, **_EVERYDAY)
    line = torch.arange(float(_SCENE))
    picture = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, _SCENE, _SCENE)
    for _ in range(8):  # clutter: discs and bars, as large as eyes or heads
        x, y = _SCENE * torch.rand(2, count, 1, 1, generator=generator)
        wide, tall = 2 + 16 * torch.rand(2, count, 1, 1, generator=generator) ** 2
        round_one = torch.rand(count, 1, 1, generator=generator) < 0.5
        u, v = ((line - x) / wide).abs(), ((line[:, None] - y) / tall).abs()
        inside = torch.where(round_one, u**2 + v**2, torch.maximum(u, v)) <= 1
        picture = _blend(picture, inside.float(), torch.rand(count, 3, 1, 1, generator=generator))
    picture = picture + 0.025 * torch.randn(picture.shape, generator=generator)
    cover = (faces["cover"].unflatten(0, (count, 4)) * present[..., None, None])[:, :, None]
    images = faces["images"].unflatten(0, (count, 4))
    offsets = []
    for slot in range(4):
        top, left = _CANVAS * (slot // 2), _CANVAS * (slot % 2)
        place = (..., slice(top, top + _CANVAS), slice(left, left + _CANVAS))
        picture[place] = picture[place] + cover[:, slot] * (images[:, slot] - picture[place])
        offsets.append([float(left), float(top)])
    offset = torch.tensor(offsets)
    return {
        "images": picture.clamp(0, 1),
        "labels": labels,
        "present": present,
        "boxes": faces["boxes"].unflatten(0, (count, 4)) + offset.repeat(1, 2),
        "landmarks": faces["landmarks"].unflatten(0, (count, 4)) + offset[:, None],
    }


def _fit_detector(steps: int, seed: int = 0, scenes: int = 400, batch: int = 16) -> _Detector:
    generator = torch.Generator().manual_seed(4000 + seed)
    torch.manual_seed(seed)
    world = _scenes(_people(_PEOPLE, generator), scenes, generator)
    middle = (world["boxes"][..., :2] + world["boxes"][..., 2:]) / 2  # (B, 4, 2)
    away = torch.linalg.vector_norm(_cells(12, 12)[:, None] - middle[:, None], dim=-1)  # (B, N, 4)
    away, nearest = away.masked_fill(~world["present"][:, None], torch.inf).min(-1)  # (B, N)
    positive = away < _CELL
    model = _Detector()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=max(steps, 1))
    for step in range(steps):
        chosen = torch.randint(scenes, (batch,), generator=generator)
        logits, boxes = model(world["images"][chosen])
        mine = positive[chosen]
        truth = world["boxes"][chosen[:, None], nearest[chosen]][mine]  # (K, 4)
        loss = F.binary_cross_entropy_with_logits(logits, mine.float())
        loss = loss + 0.2 * F.smooth_l1_loss(boxes[mine], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 150 == 149:
            _say(f"detector, step {step + 1} of {steps}, loss {loss.item():.3f}")
    return model.eval()


@torch.no_grad()
def _find(detector: _Detector, pictures: Tensor) -> list[Tensor]:
    """For each picture the boxes (K, 4) of its faces, best first."""
    found = []
    for part in pictures.split(100):
        for logits, boxes in zip(*detector(part), strict=True):
            sure = logits > 0
            found.append(boxes[sure][iou_nms(boxes[sure], logits[sure], 0.3)])
    return found


@torch.no_grad()
def _find_one(detector: _Detector, pictures: Tensor) -> Tensor:
    """The surest box (B, 4) of each picture."""
    logits, boxes = detector(pictures)
    best: Tensor = boxes[torch.arange(len(pictures)), logits.argmax(1)]
    return best


def _fit_landmarker(photos: Photos, steps: int, seed: int = 0) -> nn.Sequential:
    """A network that says how far, in pixels of a crop, landmarks (B, 10) lie from the template.

    It learns on crops by boxes and on crops by landmarks that are somewhat off, so that it can be asked
    twice: for a first guess, and again in the crop that the guess gives.
    """
    generator = torch.Generator().manual_seed(5000 + seed)
    torch.manual_seed(seed)
    images, boxes, landmarks = photos["images"], photos["boxes"], photos["landmarks"]
    template = arcface_template(_CROP)
    model = nn.Sequential(*_network(64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=max(steps, 1))
    for step in range(steps):
        batch = torch.randint(len(images), (_BATCH,), generator=generator)
        x, truth = images[batch], landmarks[batch]
        by_box = _upright(boxes[batch] + 1.5 * torch.randn(_BATCH, 4, generator=generator))
        by_guess = truth + 1.5 * torch.randn(truth.shape, generator=generator)
        first = torch.rand(_BATCH, 1, 1, generator=generator) < 0.5
        guess = torch.where(first, by_box, by_guess)
        wanted = similarity_transform(truth, umeyama(guess, template)) - template
        found = model(_normal(align_face(x, guess, _CROP))).unflatten(1, (5, 2))
        loss = F.smooth_l1_loss(found, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 150 == 149:
            _say(f"landmarks, step {step + 1} of {steps}, loss {loss.item():.3f}")
    return model.eval()


@torch.no_grad()
def _landmarks(model: nn.Module, images: Tensor, boxes: Tensor) -> Tensor:
    """Landmarks (B, 5, 2) of the face in each box (B, 4): a guess from the box, mended in the aligned crop."""
    points, template = _upright(boxes), arcface_template(_CROP)
    for _ in range(2):
        matrix = umeyama(points, template)  # from the picture into the crop
        found = template + model(_normal(align_face(images, points, _CROP))).unflatten(1, (5, 2))
        points = (found - matrix[:, None, :, 2]) @ torch.linalg.inv(matrix[..., :2]).mT
    return points


def _landmark_error(found: Tensor, truth: Tensor) -> Tensor:
    """Mean distance (B,) of the five landmarks, over the distance from the eyes' middle to the mouth's.

    That length keeps its size when the head turns aside, where the distance of the eyes shrinks."""
    size = torch.linalg.vector_norm(truth[:, :2].mean(1) - truth[:, 3:].mean(1), dim=1)
    error: Tensor = torch.linalg.vector_norm(found - truth, dim=-1).mean(1) / size
    return error


_YAWS = (0.0, 15.0, 30.0, 45.0, 60.0)
_NOISES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
_VARIANTS: dict[str, dict[str, bool]] = {
    "full": {},
    "no_augmentation": {"augmented": False},
    "no_alignment": {"aligned": False},
}


@experiment
def stages(
    steps: int = _STEPS,
    detector_steps: int = 300,
    landmark_steps: int = 500,
    seeds: Sequence[int] = (0, 1, 2),
    people: int = _TESTED,
    scenes: int = 100,
) -> dict[str, Any]:
    """The whole pipeline with ArcFace, with and without its stages, on people never seen before.

    One detector finds faces, one network their landmarks; the embedding is trained for each seed. Variants: full;
    true_landmarks (of the drawing instead of the detector's); flip (embeddings of photo and mirror image
    added); no_augmentation (trained without random_pose); no_alignment (trained and tested on the
    detector's boxes, upright); skipped_alignment (trained on aligned faces, tested on boxes).
    rows: variant, and the columns of `_scores` with _spread. <variant>_<column>: single values.
    seed_rows: variant, seed, tar. <variant>_loss, <variant>_loss_spread, <variant>_wins: tar of full less
    that of the variant, seed by seed, and how many seeds it is above 0. template_gain: template_tar less
    single_tar of full, with template_gain_wins.
    detector_error: mean of landmark distances over the height from eyes to mouth, in percent; detector_pixels:
    in pixels; sees_faces: share of test photos with a box of IoU above 0.5.
    pose_rows: yaw, and for each trained variant <variant>_cosine (frontal photo against one at this yaw, same
    person), <variant>_tar (at its threshold for FAR 1 % over everyday photos of other people).
    pose_<variant>_threshold. pose_tar_<yaw>_<variant>.
    noise_rows: noise (pixels, standard deviation of each coordinate), tar, low, high. noise_tar_<index>.
    scene_faces, scene_found, scene_false (counts), scene_recall, scene_precision; scene_known, scene_right,
    scene_confused, scene_rejected (people enrolled), scene_strangers, scene_stopped, scene_accepted;
    scene_<outcome>_share; scene_threshold: chosen on other people for 5 % of strangers accepted.
    shown_...: arrays and lists of three scenes for the figure. weights: of detector, landmarker, embedding.
    seeds, steps, detector_steps, landmark_steps, scenes, enrolled, enrolled_photos.
    """
    torch.set_num_threads(1)
    detector, landmarker = _fit_detector(detector_steps), _fit_landmarker(_everyday_photos(), landmark_steps)
    (persons, test), (_, held) = _strangers(0, people, 8), _strangers(1, people, 8)
    labels, generator = test["labels"], torch.Generator().manual_seed(6)

    def locate(images: Tensor) -> tuple[Tensor, Tensor]:
        boxes = _find_one(detector, images)
        return boxes, _landmarks(landmarker, images, boxes)

    boxes, landmarks = locate(test["images"])
    held_boxes, held_landmarks = locate(held["images"])
    aligned = align_face(test["images"], landmarks, _CROP)
    held_aligned = align_face(held["images"], held_landmarks, _CROP)
    inputs = {
        "full": aligned,
        "true_landmarks": align_face(test["images"], test["landmarks"], _CROP),
        "boxes": _box_crop(test["images"], boxes),
    }
    held_inputs = {"full": held_aligned, "boxes": _box_crop(held["images"], held_boxes)}

    def views(**limits: float) -> dict[str, Tensor]:
        images = _photos(persons, torch.arange(people), generator, **limits)["images"]
        boxes, landmarks = locate(images)
        return {"full": align_face(images, landmarks, _CROP), "boxes": _box_crop(images, boxes)}

    frontal = views()
    poses = [views(fixed_yaw=sign * yaw) for yaw in _YAWS for sign in (-1.0, 1.0)]
    turned = {view: [crops[view] for crops in poses] for view in frontal}
    found: dict[str, list[dict[str, float]]] = {}
    pose: dict[str, list[list[tuple[float, float]]]] = {}
    thresholds: dict[str, list[float]] = {}
    noisy: list[list[float]] = []
    keep: nn.Module | None = None
    for seed in seeds:
        photos = _training_photos(seed)
        for name, options in _VARIANTS.items():
            model, _ = _fit(photos, ["arcface"], seed, steps, **options)["arcface"]
            view = "boxes" if name == "no_alignment" else "full"
            found.setdefault(name, []).append(_scores(_embed(model, inputs[view]), labels))
            threshold = threshold_at_far(
                *_pair_scores(_embed(model, held_inputs[view]), held["labels"]), _FAR
            )
            thresholds.setdefault(name, []).append(float(threshold))
            pose.setdefault(name, []).append(_by_pose(model, frontal[view], turned[view], float(threshold)))
            if name == "full":
                keep = keep or model
                for other, crops in (("true_landmarks", "true_landmarks"), ("skipped_alignment", "boxes")):
                    found.setdefault(other, []).append(_scores(_embed(model, inputs[crops]), labels))
                mirrored = torch.cat(
                    [flip_fuse(model, _normal(part)) for part in aligned.split(160)]
                ).detach()
                found.setdefault("flip", []).append(_scores(mirrored, labels))
                noisy.append(
                    [
                        float(
                            tar_at_far(
                                *_pair_scores(_embed(model, _noisy_crops(test, generator, noise)), labels),
                                _FAR,
                            )
                        )
                        for noise in _NOISES
                    ]
                )
    order = ("full", "true_landmarks", "flip", "no_augmentation", "no_alignment", "skipped_alignment")
    rows = [{"variant": name} | _summary(found[name]) for name in order]
    result: dict[str, Any] = {"rows": rows} | _flat(rows, "variant")
    for name in order[1:]:
        lost = [a["tar"] - b["tar"] for a, b in zip(found["full"], found[name], strict=True)]
        result |= {f"{name}_loss": fmean(lost), f"{name}_loss_spread": _spread(lost)}
        result[f"{name}_wins"] = sum(value > 0 for value in lost)
    gains = [run["template_tar"] - run["single_tar"] for run in found["full"]]
    pose_rows: list[dict[str, Any]] = []
    for i, yaw in enumerate(_YAWS):
        row: dict[str, Any] = {"yaw": yaw}
        for name, runs in pose.items():
            row |= {
                f"{name}_cosine": fmean(run[i][0] for run in runs),
                f"{name}_tar": fmean(run[i][1] for run in runs),
            }
            result[f"pose_tar_{yaw:.0f}_{name}"] = row[f"{name}_tar"]
            result[f"pose_cosine_{yaw:.0f}_{name}"] = row[f"{name}_cosine"]
        pose_rows.append(row)
    noise_rows = [
        {
            "noise": noise,
            "tar": fmean(run[i] for run in noisy),
            "low": min(run[i] for run in noisy),
            "high": max(run[i] for run in noisy),
        }
        for i, noise in enumerate(_NOISES)
    ]
    assert keep is not None
    errors = _landmark_error(landmarks, test["landmarks"])
    return (
        result
        | _end_to_end(detector, landmarker, keep, persons, test, held, scenes)
        | {
            "seed_rows": [
                {"variant": name, "seed": seed, "tar": run["tar"]}
                for name in order
                for seed, run in zip(seeds, found[name], strict=True)
            ],
            "template_gain": fmean(gains),
            "template_gain_spread": _spread(gains),
            "template_gain_wins": sum(gain > 0 for gain in gains),
            "pose_rows": pose_rows,
            **{f"pose_{name}_threshold": fmean(values) for name, values in thresholds.items()},
            "noise_rows": noise_rows,
            **{f"noise_tar_{i}": row["tar"] for i, row in enumerate(noise_rows)},
            "detector_error": 100 * float(errors.mean()),
            "detector_pixels": float((landmarks - test["landmarks"]).norm(dim=-1).mean()),
            "sees_faces": float((_overlap(boxes, test["boxes"]) > 0.5).double().mean()),
            "weights": {
                "detector": detector.state_dict(),
                "landmarker": landmarker.state_dict(),
                "embedding": keep.state_dict(),
            },
            "seeds": len(seeds),
            "steps": steps,
            "detector_steps": detector_steps,
            "landmark_steps": landmark_steps,
            "scenes": scenes,
        }
    )


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes (..., 4) with as many others."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    both = (high - low).clamp(min=0).prod(-1)
    areas = [(some[..., 2:] - some[..., :2]).clamp(min=0).prod(-1) for some in (boxes, others)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


def _by_pose(
    model: nn.Module, frontal: Tensor, turned: Sequence[Tensor], threshold: float
) -> list[tuple[float, float]]:
    """For each yaw, both signs together: mean cosine with the frontal photo, and share above the threshold."""
    front = _embed(model, frontal)
    cosines = torch.stack([F.cosine_similarity(front, _embed(model, crops)) for crops in turned]).unflatten(
        0, (-1, 2)
    )
    return [(float(row.mean()), float((row >= threshold).double().mean())) for row in cosines]


_ENROLLED = 4


def _enrol(embeddings: Tensor, people: int) -> tuple[Tensor, Tensor, Tensor]:
    """Templates (G, D) of the first half of the people, embeddings (P, D) and labels of all later photos."""
    by_person = embeddings.unflatten(0, (people, -1))
    probes = by_person[:, _ENROLLED:]
    labels = torch.arange(people)[:, None].expand(probes.shape[:2]).flatten()
    return pool_templates(by_person[: people // 2, :_ENROLLED]), probes.flatten(0, 1), labels


def _end_to_end(
    detector: _Detector,
    landmarker: nn.Module,
    model: nn.Module,
    persons: People,
    test: Photos,
    held: Photos,
    scenes: int,
) -> dict[str, Any]:
    """Half of the test people are enrolled with four photos; all of them walk through scenes."""
    people = len(persons["width"])

    def embed(images: Tensor, boxes: Tensor) -> Tensor:
        return _embed(model, align_face(images, _landmarks(landmarker, images, boxes), _CROP))

    templates, probes, who = _enrol(embed(held["images"], _find_one(detector, held["images"])), people)
    threshold = float(threshold_at_far(identify(probes, templates)[1], who < people // 2, _OPEN_FAR))
    gallery, _, _ = _enrol(embed(test["images"], _find_one(detector, test["images"])), people)
    world = _scenes(persons, scenes, torch.Generator().manual_seed(8))
    count = dict.fromkeys(
        (
            "faces",
            "found",
            "false",
            "known",
            "right",
            "confused",
            "rejected",
            "strangers",
            "stopped",
            "accepted",
        ),
        0,
    )
    shown: list[list[dict[str, Any]]] = []
    crops: list[Tensor] = []
    for i, boxes in enumerate(_find(detector, world["images"])):
        here = world["present"][i].nonzero()[:, 0]
        truth, names = world["boxes"][i, here], world["labels"][i, here]
        overlap = _overlap(boxes[:, None], truth[None])  # (K, T)
        picture = world["images"][i].expand(len(boxes), -1, -1, -1)
        landmarks = _landmarks(landmarker, picture, boxes)
        faces = align_face(picture, landmarks, _CROP)
        index, score = (
            identify(_embed(model, faces), gallery, threshold) if len(boxes) else (names[:0], names[:0])
        )
        open_faces = set(range(len(truth)))
        marks = []
        for k in range(len(boxes)):
            best = int(overlap[k].argmax())
            hit = float(overlap[k, best]) > 0.5 and best in open_faces
            said = int(index[k])
            outcome = "false"
            if hit:
                open_faces.discard(best)
                name = int(names[best])
                if name < len(gallery):
                    outcome = "right" if said == name else "rejected" if said < 0 else "confused"
                else:
                    outcome = "stopped" if said < 0 else "accepted"
            count[outcome] += 1
            marks.append(
                {
                    "box": boxes[k].tolist(),
                    "landmarks": landmarks[k].tolist(),
                    "name": said,
                    "cosine": float(score[k]),
                    "outcome": outcome,
                }
            )
        count["faces"] += len(truth)
        if len(shown) < 3 and len(truth) >= 3 and i >= 3:
            shown.append(marks)
            crops.append(world["images"][i])
    count["known"] = count["right"] + count["confused"] + count["rejected"]
    count["strangers"] = count["stopped"] + count["accepted"]
    count["found"] = count["known"] + count["strangers"]
    shares = {
        f"scene_{name}_share": count[name] / max(count[whole], 1)
        for name, whole in (
            ("right", "known"),
            ("confused", "known"),
            ("rejected", "known"),
            ("stopped", "strangers"),
            ("accepted", "strangers"),
        )
    }
    return shares | {
        **{f"scene_{name}": number for name, number in count.items()},
        "scene_recall": count["found"] / count["faces"],
        "scene_precision": count["found"] / max(count["found"] + count["false"], 1),
        "scene_threshold": threshold,
        "enrolled": people // 2,
        "enrolled_photos": _ENROLLED,
        "shown_faces": shown,
        "shown_scenes": torch.stack(crops).numpy() if crops else world["images"][:0].numpy(),
    }


# --- groups --------------------------------------------------------------------------------------


def _alike(people: People) -> People:
    """The same people with equal colors and equal hair: they differ in their features only."""
    fixed = {
        "skin": 0.6,
        "skin_hue": 0.0,
        "hair": 0.1,
        "hair_hue": 0.0,
        "hair_volume": 0.1,
        "hair_length": -0.3,
    }
    fixed |= {"hairline": -0.75, "fringe": 0.0, "beard": 0.0, "eye_hue": 0.3}
    return people | {name: torch.full_like(people[name], value) for name, value in fixed.items()}


def _mixed(share: float) -> Callable[[People], People]:
    """Makes the first `share` of the people alike."""

    def change(people: People) -> People:
        first = torch.arange(len(people["width"])) < share * len(people["width"])
        return {name: torch.where(first, value, people[name]) for name, value in _alike(people).items()}

    return change


@experiment
def groups(
    steps: int = _STEPS,
    seeds: Sequence[int] = (0, 1),
    people: int = _TESTED,
    training_people: int = 200,
    photos: int = 5,
) -> dict[str, Any]:
    """One threshold, two groups of people: of one, everybody has the same colors and hair.

    Two trainings: skewed (the group is 5 % of the training people), balanced (50 %). There are more people
    than elsewhere, with fewer photos: 5 % of few are so few that the ratio below hangs on who they are.
    The threshold gives
    FAR 1 % over the held-out pairs within both groups taken together.
    rows: training, group (varied, uniform), far, tar, tar_own (with a threshold of FAR 1 % for the group
    itself), each with _spread. <training>_<group>_<column>: single values; <training>_ratio: far of
    uniform over far of varied, mean over seeds, with _spread. seeds, people, training_people, photos (of each
    of those), minority (its share, skewed).
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(9)
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    labels = torch.arange(people).repeat_interleave(6)
    for use in ("test", "held"):
        persons = _people(people, generator)
        for group, some in (("varied", persons), ("uniform", _alike(persons))):
            shown = _photos(some, labels, generator, **_EVERYDAY)
            parts[f"{use}_{group}"] = (_noisy_crops(shown, generator), labels)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    ratios: dict[str, list[float]] = {}
    for training, share in (("skewed", _MINORITY), ("balanced", 0.5)):
        for seed in seeds:
            collected = _training_photos(seed, photos, change=_mixed(share), people=training_people)
            model, _ = _fit(collected, ["arcface"], seed, steps)["arcface"]
            pairs = {name: _pair_scores(_embed(model, crops), who) for name, (crops, who) in parts.items()}
            held = [torch.cat([pairs["held_varied"][i], pairs["held_uniform"][i]]) for i in (0, 1)]
            threshold = threshold_at_far(held[0], held[1], _FAR)
            for group in ("varied", "uniform"):
                scores, same = pairs[f"test_{group}"]
                found.setdefault((training, group), []).append(
                    {
                        "far": float((scores[~same] >= threshold).double().mean()),
                        "tar": float((scores[same] >= threshold).double().mean()),
                        "tar_own": float(tar_at_far(scores, same, _FAR)),
                    }
                )
            varied, uniform = (found[training, group][-1]["far"] for group in ("varied", "uniform"))
            ratios.setdefault(training, []).append(uniform / max(varied, 1e-9))
    rows = [
        {"training": training, "group": group} | _summary(runs) for (training, group), runs in found.items()
    ]
    single = {
        f"{row['training']}_{row['group']}_{key}": value
        for row in rows
        for key, value in row.items()
        if key not in ("training", "group")
    }
    for training, values in ratios.items():
        single |= {f"{training}_ratio": fmean(values), f"{training}_ratio_spread": _spread(values)}
    return single | {
        "rows": rows,
        "seeds": len(seeds),
        "people": people,
        "training_people": training_people,
        "photos": photos,
        "minority": _MINORITY,
    }


_MINORITY = 0.05

# --- pictures of what happens --------------------------------------------------------------------


@experiment
def samples(people: int = 6) -> dict[str, Any]:
    """Drawn faces, and what alignment and augmentation make of them, for the figures.

    sheet (array, 7 x people x 3 x 48 x 48): the same people with each nuisance of `sheet_rows`;
    before (array, 5 x 3 x 48 x 48), before_points, after (5 x 3 x 64 x 64), after_points, box_crops
    (5 x 3 x 64 x 64: the upright box), template (5 x 2); turned (5 x 3 x 48 x 48): one frontal photo turned
    by turn_face to the yaws of turned_yaws, drawn (the same person drawn so).
    after_error: mean distance of the aligned landmarks from the template, in pixels of 112.
    traits: number of parameters of a person.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(21)
    persons = _people(people, generator)
    labels = torch.arange(people)
    kinds: dict[str, dict[str, float]] = {
        "none": {},
        "yaw": {"yaw": 45.0},
        "roll": {"roll": 40.0},
        "light": {"light": 0.8},
        "expression": {"expression": 1.0},
        "occlusion": {"occlusion": 1.0},
        "everyday": _EVERYDAY,
    }
    sheet = torch.stack(
        [_photos(persons, labels, generator, **limits)["images"] for limits in kinds.values()]
    )
    few = _photos(persons, labels[:5], generator, yaw=35.0, roll=40.0)
    matrix = umeyama(few["landmarks"], arcface_template(64))
    after_points = similarity_transform(few["landmarks"], matrix)
    boxes = _box_crop(few["images"], few["boxes"])
    yaws = torch.tensor([-40.0, -20.0, 0.0, 20.0, 40.0])
    one = {name: value[:1].expand(len(yaws)) for name, value in persons.items()}
    how = _conditions(len(yaws), generator, jitter=0.0)
    drawn = _draw(one, how | {"yaw": yaws.deg2rad(), "radius": torch.full_like(yaws, 13.0)}, generator)
    frontal = drawn["images"][2].expand(len(yaws), -1, -1, -1)
    turned, _ = turn_face(frontal, drawn["landmarks"][2].expand(len(yaws), -1, -1), yaws)
    return {
        "turned": turned.numpy(),
        "drawn": drawn["images"].numpy(),
        "turned_yaws": yaws.tolist(),
        "sheet": sheet.numpy(),
        "sheet_rows": list(kinds),
        "before": few["images"].numpy(),
        "before_points": few["landmarks"].numpy(),
        "after": align_face(few["images"], few["landmarks"], 64).numpy(),
        "after_points": after_points.numpy(),
        "box_crops": F.interpolate(boxes, scale_factor=64 / _CROP, mode="nearest").numpy(),
        "template": arcface_template(64).numpy(),
        "after_error": float((after_points - arcface_template(64)).norm(dim=-1).mean()) * 112 / 64,
        "traits": len(_TRAITS),
    }


@experiment
def target_logits(count: int = 181, scale: float = 64.0, margin: float = 0.5) -> dict[str, Any]:
    """The logit of the right class against its angle, divided by the scale (by the length, where there is none).

    degrees, softmax, sphereface (margin 4), cosface (0.35), arcface, arcface_easy, naive (cos(theta + m) at
    every angle): arrays. turn: the angle pi - m in degrees, from which naive rises.
    naive_end, arcface_end: logits at 180 degrees times the scale. naive_loss, arcface_loss: cross-entropy
    at `far_degrees` with the other class at a right angle to its weight. scale, margin (degrees).
    """
    theta = torch.linspace(0, math.pi, count, dtype=torch.float64)
    x = torch.stack([theta.cos(), theta.sin(), torch.zeros_like(theta)], 1)
    labels = torch.zeros(count, dtype=torch.long)
    heads: dict[str, nn.Module] = {
        "sphereface": SphereFace(3, 2, margin=4),
        "cosface": CosFace(3, 2, scale, 0.35),
        "arcface": ArcFace(3, 2, scale, margin),
        "arcface_easy": ArcFace(3, 2, scale, margin, easy_margin=True),
    }
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    curves = {"softmax": softmax_logits(x, weight)[:, 0]}
    far = int(0.95 * (count - 1))
    for name, head in heads.items():
        head.double().weight.data = weight
        logits = head(x, labels).detach()
        curves[name] = logits[:, 0] / (1 if name == "sphereface" else scale)
        if name == "arcface":
            kept = float(F.cross_entropy(logits[far : far + 1], labels[:1]))
    curves["naive"] = (theta + margin).cos()
    naive = torch.stack([scale * curves["naive"][far], torch.zeros((), dtype=torch.float64)])
    return {name: curve.numpy() for name, curve in curves.items()} | {
        "degrees": theta.rad2deg().numpy(),
        "turn": math.degrees(math.pi - margin),
        "naive_end": scale * float(curves["naive"][-1]),
        "arcface_end": scale * float(curves["arcface"][-1]),
        "naive_loss": float(F.cross_entropy(naive[None], labels[:1])),
        "arcface_loss": kept,
        "far_degrees": float(theta[far].rad2deg()),
        "scale": scale,
        "margin": math.degrees(margin),
    }


@experiment
def circle(steps: int = 250, people: int = 6, photos: int = 40, seed: int = 0) -> dict[str, Any]:
    """Embeddings in two dimensions: few people, each loss, photos that were not trained on.

    <loss>_points (array, N x 2), <loss>_weights (array, people x 2), labels (array, N).
    rows: loss, within (mean angle between photo and the mean direction of its person, degrees), between
    (smallest angle between the mean directions of two people), accuracy (nearest mean direction).
    <loss>_<column>: single values. people, photos, steps.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(300 + seed)
    persons, labels = _people(people, generator), torch.arange(people).repeat_interleave(photos)
    mild = {"yaw": 15.0, "roll": 30.0, "light": 0.3, "expression": 0.5}
    train, test = (_photos(persons, labels, generator, **mild) for _ in range(2))
    crops = _noisy_crops(test, generator)
    result: dict[str, Any] = {"labels": labels.numpy()}
    rows = []
    # In two dimensions a faster rate leaves people on one another; turned copies are not needed, as no head turns far.
    fitted = _fit(train, list(_HEADS), seed, steps, augmented=False, dim=2, rate=1e-2)
    for name, (model, head) in fitted.items():
        points = _embed(model, crops)
        directions = F.normalize(points)
        means = F.normalize(directions.unflatten(0, (people, photos)).mean(1))
        away = cosine_scores(means, means).fill_diagonal_(-1).amax()
        own = (directions * means[labels]).sum(1).clamp(-1, 1)
        rows.append(
            {
                "loss": name,
                "within": float(own.acos().rad2deg().mean()),
                "between": float(away.acos().rad2deg()),
                "accuracy": float((identify(points, means)[0] == labels).double().mean()),
            }
        )
        weights = head.state_dict()["weight"]
        result |= {f"{name}_points": points.numpy(), f"{name}_weights": weights.numpy()}
    return result | _flat(rows, "loss") | {"rows": rows, "people": people, "photos": photos, "steps": steps}


# --- mistakes ------------------------------------------------------------------------------------


def _naive_umeyama(source: Tensor, target: Tensor) -> Tensor:
    """The best orthogonal matrix, be it a rotation or a mirror image; (..., 2, 2)."""
    x, y = (points - points.mean(-2, keepdim=True) for points in (source, target))
    u, _, vh = torch.linalg.svd(y.mT @ x)
    best: Tensor = u @ vh
    return best


@experiment
def published_mistakes(steps: int = _STEPS, people: int = _TESTED) -> dict[str, Any]:
    """Mistakes found in tutorials and repositories, each against the right number.

    rows: mistake, measure, wrong, right. <mistake>_wrong, <mistake>_right: single values.
    With one ArcFace network on people never seen before (TAR at FAR 1 % unless said otherwise):
    unaligned (fed upright boxes), constant_threshold (FAR with 0.6; right: with the threshold of held-out
    people), swapped_channels (blue for red), one_side (the gallery fused with its mirror images, the probes
    not; right: both), seen_people (new photos of training people; right: of others), reversed (EER with
    the distance taken for a similarity), test_threshold (accuracy at the threshold best on 400 test pairs
    themselves; right: ten folds).
    With a softmax network: unnormalized (dot products for cosines).
    Without training: reflection (share of nearly edge-on faces that are mirrored: Umeyama without the sign),
    every_class (how much a CosFace margin of 0.35 raises the loss, subtracted from all classes; right: from
    the target), past_pi (slope of the target logit against the angle at 170 degrees, per degree, ArcFace of
    scale 64), gradient_at_zero (share of embeddings on their own class's
    weight whose gradient is finite, through acos; right: of the snippet).
    mistakes: their number. half_bound: 1 - 1e-7 in float16. threshold: of the held-out people. one_side_none: neither side fused.
    constant_tar, held_tar. fold_spread: standard deviation of the ten folds' accuracies.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(11)
    test, held = _strangers(0, people, 8)[1], _strangers(1, people, 8)[1]
    labels = test["labels"]
    photos = _training_photos(0)
    fitted = _fit(photos, ["arcface", "softmax"], 0, steps)
    model, plain = (fitted[name][0] for name in ("arcface", "softmax"))
    crops, held_crops = _noisy_crops(test, generator), _noisy_crops(held, generator)
    embeddings = _embed(model, crops)
    scores, same = _pair_scores(embeddings, labels)
    right = float(tar_at_far(scores, same, _FAR))

    def tar_of(others: Tensor, who: Tensor = labels) -> float:
        return float(tar_at_far(*_pair_scores(others, who), _FAR))

    threshold = float(threshold_at_far(*_pair_scores(_embed(model, held_crops), held["labels"]), _FAR))
    again = _noisy_crops(_training_photos(0, 8, everyday=True), generator)
    fused = torch.cat([flip_fuse(model, _normal(part)) for part in crops.split(160)]).detach()

    def between(gallery: Tensor, probes: Tensor) -> float:
        """TAR of the second half of each person's photos against the first photo."""
        by_person, others = gallery.unflatten(0, (people, -1)), probes.unflatten(0, (people, -1))
        table = cosine_scores(others[:, 4:].flatten(0, 1), by_person[:, 0])
        own = torch.arange(people).repeat_interleave(others.shape[1] - 4)[:, None] == torch.arange(people)
        return float(tar_at_far(table, own, _FAR))

    some = torch.randperm(int(same.sum()), generator=generator)[:200]
    others = torch.randperm(int((~same).sum()), generator=generator)[:200]
    mixed = torch.randperm(400, generator=generator)
    few = torch.cat([scores[same][some], scores[~same][others]])[mixed]
    few_same = torch.cat([torch.ones(len(some)), torch.zeros(len(others))])[mixed] == 1
    far, tar, _ = roc(few, few_same)
    folds, _ = kfold_threshold(few, few_same)

    plain_embeddings = _embed(plain, crops)
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    dots = (plain_embeddings @ plain_embeddings.T)[first, second]

    persons = _people(400, generator)
    edge_on = _photos(persons, torch.arange(400), generator, fixed_yaw=75.0)["landmarks"]
    edge_on = edge_on + 1.5 * torch.randn(edge_on.shape, generator=generator)
    template = arcface_template()
    proper = umeyama(edge_on, template)[..., :2]
    mirrored = (torch.linalg.det(_naive_umeyama(edge_on, template)) < 0).double().mean()

    margins = _margin_losses(generator)
    naive_slope, kept_slope = _slopes(math.radians(170.0))
    rows = [
        ("unaligned", "tar", tar_of(_embed(model, _box_crop(test["images"], test["boxes"]))), right),
        (
            "constant_threshold",
            "far",
            float((scores[~same] >= 0.6).double().mean()),
            float((scores[~same] >= threshold).double().mean()),
        ),
        ("swapped_channels", "tar", tar_of(_embed(model, crops.flip(1))), right),
        ("one_side", "tar", between(fused, embeddings), between(fused, fused)),
        (
            "seen_people",
            "tar",
            tar_of(_embed(model, again), torch.arange(_PEOPLE).repeat_interleave(8)),
            right,
        ),
        ("reversed", "eer", float(equal_error_rate(1 - scores, same)), float(equal_error_rate(scores, same))),
        ("test_threshold", "accuracy", float(((tar + 1 - far) / 2).max()), float(folds.mean())),
        ("unnormalized", "tar", float(tar_at_far(dots, same, _FAR)), tar_of(plain_embeddings)),
        ("reflection", "mirrored", float(mirrored), float((torch.linalg.det(proper) < 0).double().mean())),
        ("every_class", "loss_gain", abs(margins[1] - margins[0]), margins[2] - margins[0]),
        ("past_pi", "slope", naive_slope, kept_slope),
        ("gradient_at_zero", "finite", *_finite_at_zero()),
    ]
    table = [
        {"mistake": name, "measure": measure, "wrong": wrong, "right": good}
        for name, measure, wrong, good in rows
    ]
    return {
        "rows": table,
        **{f"{row['mistake']}_{key}": row[key] for row in table for key in ("wrong", "right")},
        "mistakes": len(table),
        "half_bound": float(torch.tensor(1 - 1e-7).half()),
        "threshold": threshold,
        "one_side_none": between(embeddings, embeddings),
        "constant_tar": float((scores[same] >= 0.6).double().mean()),
        "held_tar": float((scores[same] >= threshold).double().mean()),
        "fold_spread": float(folds.std()),
    }


def _margin_losses(generator: torch.Generator) -> tuple[float, float, float]:
    """Cross-entropy of scaled cosines without a margin, with one on every class, with one on the target."""
    x, weight = torch.randn(64, 16, generator=generator), torch.randn(10, 16, generator=generator)
    labels = torch.randint(10, (64,), generator=generator)
    plain, margined = (CosFace(16, 10, scale=64, margin=margin) for margin in (0.0, 0.35))
    plain.weight.data, margined.weight.data = weight, weight
    cosines = 64 * cosine_scores(x, weight)
    return (
        float(F.cross_entropy(plain(x, labels).detach(), labels)),
        float(F.cross_entropy(cosines - 64 * 0.35, labels)),
        float(F.cross_entropy(margined(x, labels).detach(), labels)),
    )


def _slopes(theta: float, scale: float = 64.0, margin: float = 0.5) -> tuple[float, float]:
    """How fast the target logit grows with the angle, per degree: cos(theta + m) everywhere, and ArcFace's."""
    angle = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    (naive,) = torch.autograd.grad(scale * (angle + margin).cos(), angle)
    head = ArcFace(2, 1, scale, margin).double()
    head.weight.data = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    logit = head(torch.stack([angle.cos(), angle.sin()])[None], torch.zeros(1, dtype=torch.long))
    (kept,) = torch.autograd.grad(logit.sum(), angle)
    return math.radians(float(naive)), math.radians(float(kept))


def _finite_at_zero(margin: float = 0.5) -> tuple[float, float]:
    """Share of embeddings, each on the weight of its class, whose gradient is finite: through acos, by ArcFace."""
    x, labels = torch.eye(16, requires_grad=True), torch.arange(16)
    cosine = F.normalize(x) @ torch.eye(16).T
    wrong = (cosine.acos() + margin * torch.eye(16)).cos()
    head = ArcFace(16, 16, 64.0, margin)
    head.weight.data = torch.eye(16)
    shares = []
    for logits in (64 * wrong, head(x, labels)):
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), x)
        shares.append(float(gradient.isfinite().all(1).double().mean()))
    return shares[0], shares[1]
