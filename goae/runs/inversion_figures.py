"""The figures that show inversions: Fig. 6 to 9 and 12 to 16."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from eg3d.cameras import split_label
from eg3d.generator import TriPlaneGenerator
from eg3d.rendering.rays import rays
from torch import Tensor
from torch.nn.functional import interpolate

from goae import build
from goae.baselines.encoder_only import EncoderOnly
from goae.camera.level import level_label, mirrored, yaw_of
from goae.config import FiguresConfig, PerceptionConfig
from goae.data.datasets import PosedImages
from goae.evaluation.protocols import People, novel_view_tasks
from goae.evaluation.runner import Method, reconstruct, write_json
from goae.inversion import Inverter
from goae.loading import read_generator
from goae.models.goae import GOAE
from goae.models.occlusion import RELEASED_PLANE_RESOLUTION, dense_depth, seen_points, surface_points
from goae.runs.background_study import background_record
from goae.runs.occlusion_study import inverted_masks, occlusion_record, true_masks
from goae.runs.protocol_inputs import PEOPLE
from goae.runs.setup import device_of, finished_stages, open_run, run_encoder, run_inverter
from goae.viz.grid import depth_picture
from goae.viz.sheet import sheet

CATS = (16, 19)
OCCLUSION_RAYS = 4  # of the input camera's depth map, for each ray of the novel view, along each axis


class Subject(NamedTuple):
    """A test image (1, 3, H, H) with its label (1, 25)."""

    name: str
    image: Tensor
    c: Tensor


def ablation_of_encoders(config: FiguresConfig) -> Path:
    """Fig. 7: stage 1 with and without D_Wc and L_BG, inverted by ws alone; input view, novel view and depth.

    Where the background lies in front views of test images goes to `figure-7.json` beside the picture.
    """
    methods = {label: run_encoder(open_run(config, run)) for label, run in config.encoders.items()}
    records = measure_backgrounds(config, methods)
    subject = subjects(config, side_faces(config)[:1])[0]
    columns: list[list[Tensor]] = [[subject.image[0], None, None]]  # type: ignore[list-item]
    depths, shown = [], []
    for method in methods.values():
        inversion = method.invert(subject.image, subject.c)
        across = mirrored(method.goae.generator, subject.c)
        own, novel = method.render(inversion, subject.c), method.render(inversion, across)
        shown.append([own.image[0], novel.image[0]])
        depths.append(novel.image_depth)
    near, far = float(torch.cat(depths).min()), float(torch.cat(depths).max())
    side = subject.image.shape[-1]
    for pictures, depth in zip(shown, depths, strict=True):
        grey = interpolate(depth_picture(depth, near=near, far=far), (side, side))
        columns.append([*pictures, grey[0]])
    yaw = yaw_of(across)
    labels = ["input view", f"novel view\n{yaw:+.0f}°", "its depth"]
    gaps = ", ".join(f"{label} {record['depth_gap']:.3f}" for label, record in records.items())
    caption = (
        f"Fig. 7: stage 1 alone; {subject.name}, seen from {yaw:+.0f}°; near is white, one scale. Depth of the "
        f"background less that of the head, front views of test images: {gaps}"
    )
    return write(config, sheet(list(zip(*columns, strict=True)), ["input", *methods], labels, caption=caption))


def measure_backgrounds(config: FiguresConfig, methods: dict[str, EncoderOnly]) -> dict[str, dict[str, Any]]:
    """label -> `background_record`, written beside the picture."""
    segment = build.build_background(config.networks, device_of(config))
    images, wanted = PosedImages(config.images), config.conditions
    records = {
        label: background_record(
            method, images, segment, num=config.num_fronts, batch_size=wanted.batch_size, erode=wanted.erode
        )
        for label, method in methods.items()
    }
    write_json(records, Path(config.output) / f"figure-{config.figure}.json")
    return records


def ablation_of_alignment(config: FiguresConfig) -> Path:
    """Fig. 8: input, W+ inversion, feature alignment replaced by a CNN, feature alignment."""
    methods = {label: run_inverter(open_run(config, run)) for label, run in config.refiners.items()}
    first = EncoderOnly(next(iter(methods.values())).goae)
    rows = []
    for subject in subjects(config):
        own = [reconstruct(method, subject.image, subject.c).image[0] for method in methods.values()]
        rows.append([subject.image[0], reconstruct(first, subject.image, subject.c).image[0], *own])
    caption = f"Fig. 8: input view; W+ is stage 1 of “{next(iter(methods))}”."
    return write(config, sheet(rows, ["input", "W+", *methods], names(config.subjects), caption=caption))


def ablation_of_mix(config: FiguresConfig) -> Path:
    """Fig. 9: a novel view of the refined planes without and with the mix, and what the input camera sees of it.

    Where there are true novel views, errors at seen and hidden places go to `figure-9.json` beside the picture. What
    the mask loses with few rays goes to `figure-9-rays.json`.
    """
    inverter = run_inverter(open_run(config, config.ours))
    write_json(measure_rays(config, inverter.goae), Path(config.output) / f"figure-{config.figure}-rays.json")
    if config.multiview:
        write_json(measure_mix(config, inverter.goae), Path(config.output) / f"figure-{config.figure}.json")
    rows = []
    for subject in subjects(config):
        c = mirrored(inverter.goae.generator, subject.c)
        plain, mixed, occlusion = mix_views(inverter, subject, c)
        rows.append([subject.image[0], plain, mixed, occlusion])
    columns = ["input", "without mix", "with mix", "occlusion map"]
    caption = "Fig. 9: views from the mirrored camera; white: the input camera sees the surface point, black: occluded."
    return write(config, sheet(rows, columns, names(config.subjects), caption=caption))


def measure_mix(config: FiguresConfig, goae: GOAE) -> dict[str, Any]:
    """`occlusion_record` of `num_sides` inputs from ±60°, spread over all."""
    images = PosedImages(config.multiview, extras=("depth", "parts", *PEOPLE))
    people = People(*(images.rows[name] for name in PEOPLE))
    tasks = novel_view_tasks(people, [-60.0, -30.0, 0.0, 30.0, 60.0], [60.0])
    return occlusion_record(goae, images, tasks[:: max(1, len(tasks) // config.num_sides)])


def measure_rays(config: FiguresConfig, goae: GOAE) -> dict[str, Any]:
    """`mask_rows` of the subjects; in the mini world also with planes filled up to 256², and of as many true heads."""
    given, size = [(s.image, s.c) for s in subjects(config)], goae.generator.config.plane_resolution
    record = {"num_inputs": len(given), f"inversions_{size}": inverted_masks(goae, given, size)}
    if config.multiview:
        full = RELEASED_PLANE_RESOLUTION
        record[f"inversions_{full}"] = inverted_masks(goae, given, full)
        record[f"heads_{full}"] = true_masks(len(given), goae.generator.config.rendering)
    return record


@torch.inference_mode()
def mix_views(inverter: Inverter, subject: Subject, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From camera c: the refined planes, the mixed planes, and the occlusion map, (3, H, H) each."""
    goae, device = inverter.goae, inverter.device
    own, c = subject.c.to(device), c.to(device)
    out = goae(subject.image.to(device), own)
    plain, mixed = (goae.render(planes, out.ws, c) for planes in (out.planes_f, out.planes_mix))
    side = mixed.image_depth.shape[-1]
    points = surface_points(mixed.image_depth, *rays(*split_label(c), side))

    def depth_under(camera: Tensor, rays_per_axis: int) -> Tensor:
        return goae.generator.render_depth(out.planes_mix, camera, resolution=rays_per_axis)

    depth = dense_depth(depth_under, own, OCCLUSION_RAYS * side)
    seen = seen_points(points, depth, own).view(1, 1, side, side).float()
    size = mixed.image.shape[-1]
    occlusion = interpolate(2 * seen - 1, (size, size)).expand(-1, 3, -1, -1)
    return plain.image[0], mixed.image[0], occlusion[0]


def comparison(config: FiguresConfig) -> Path:
    """Fig. 6, and 12 and 13 with encoders or optimisation alone: each method's own view and novel views."""
    wanted = {label: source for label, source in config.compared.items() if chosen(config.figure, label, source)}
    methods, missing = available(config, wanted)
    rows = []
    numbers = compared_subjects(config)
    for subject in subjects(config, numbers):
        row = [subject.image[0]]
        for method in methods.values():
            inversion = method.invert(subject.image, subject.c)
            own = getattr(method, "reconstruct", None)
            row.append((method.render(inversion, subject.c) if own is None else own(inversion)).image[0])
            cameras = [level_label(generator_of(method), yaw, subject.c) for yaw in config.novel_yaws]
            row += [method.render(inversion, c).image[0] for c in cameras]
        rows.append(row)
    columns = ["input"]
    for label in methods:
        columns += [f"{label}\nsource view", *(f"{label}\n{yaw:+g}°" for yaw in config.novel_yaws)]
    caption = f"Fig. {config.figure}."
    if missing:
        caption += f" Not shown, for want of weights: {', '.join(missing)}"
    return write(config, sheet(rows, columns, names(numbers), caption=caption))


def compared_subjects(config: FiguresConfig) -> list[int]:
    """Fig. 6 has `subjects`, Fig. 12 as many that follow them, Fig. 13 as many of the largest yaw: side faces."""
    if config.figure == 12:
        images = PosedImages(config.images)
        first = max(config.subjects) + 1
        return [number % len(images) for number in range(first, first + len(config.subjects))]
    return side_faces(config)[: len(config.subjects)] if config.figure == 13 else config.subjects


def side_faces(config: FiguresConfig) -> list[int]:
    """Numbers of the test images, those of the largest yaw first."""
    yaws = [abs(yaw_of(c[None])) for c in PosedImages(config.images).labels]
    return sorted(range(len(yaws)), key=yaws.__getitem__, reverse=True)


def chosen(figure: int, label: str, source: str) -> bool:
    """Fig. 12 has encoders, Fig. 13 optimisation; both have GOAE."""
    optimised = source in build.BASELINES
    return figure == 6 or label == "Ours" or optimised == (figure == 13)


def available(config: FiguresConfig, wanted: dict[str, str]) -> tuple[dict[str, Method[Any]], list[str]]:
    """The methods whose weights are there, and the names of the others, which are printed with the reason.

    Raises: FileNotFoundError if there is none.
    """
    methods: dict[str, Method[Any]] = {}
    missing = []
    for label, source in wanted.items():
        try:
            methods[label] = open_method(config, source)
        except FileNotFoundError as error:
            missing.append(label)
            print(f"{label} is not shown: {error}")
    if not methods:
        raise FileNotFoundError(f"of {', '.join(wanted)} no method has weights; train runs, or name them in `compared`")
    return methods, missing


def open_method(config: FiguresConfig, source: str) -> Method[Any]:
    """A run's full method, its encoder where it has no more, or optimisation by its name in `build.BASELINES`."""
    if source in build.BASELINES:
        if source == "pose_opt" and not Path(config.optimisers.regressor).is_file():
            raise FileNotFoundError(
                f"optimisers.regressor {config.optimisers.regressor!r} is no file; train one with "
                f"scripts/train_camera.py"
            )
        perception = PerceptionConfig("alex", config.networks.lpips_path, identity="none", background="depth")
        device = device_of(config)
        lpips = build.build_perception(perception, device).lpips
        generator = read_generator(config.generator_path).to(device)
        if source == "pose_opt":
            goae = run_encoder(open_run(config, config.ours)).goae
            return build.build_pose_opt(config.optimisers, generator, lpips, encode=build.codes_of(goae))
        return build.build_baseline(source, config.optimisers, generator, lpips)
    run = open_run(config, source)
    return run_inverter(run) if "refiner" in finished_stages(run) else run_encoder(run)


def generator_of(method: Method[Any]) -> TriPlaneGenerator:
    """The generator of an inverter, or of an optimisation method."""
    found: TriPlaneGenerator = method.goae.generator if hasattr(method, "goae") else method.generator  # type: ignore[attr-defined]
    return found


def views(config: FiguresConfig) -> Path:
    """Fig. 14 and 15: inputs and their inversions from all around; each figure has half of the subjects."""
    shown = part_of(config)
    if not config.subjects[shown]:
        raise ValueError(f"subjects is {config.subjects}; expected at least two, one for each of Fig. 14 and 15")
    return draw_views(config, shown)


def cat_views(config: FiguresConfig) -> Path:
    """Fig. 16: cats and their inversions from all around."""
    check_cats(config)
    return draw_views(config, slice(None))


def draw_views(config: FiguresConfig, shown: slice) -> Path:
    """A row for each of these subjects, a column for each of `yaws`."""
    inverter = run_inverter(open_run(config, config.ours))
    if len(config.yaws) < 5:
        raise ValueError(f"yaws has {len(config.yaws)} angles; expected at least five")
    rows = []
    for subject in subjects(config)[shown]:
        inversion = inverter.invert(subject.image, subject.c)
        cameras = [level_label(inverter.goae.generator, yaw, subject.c) for yaw in config.yaws]
        rows.append([subject.image[0], *(inverter.render(inversion, c).image[0] for c in cameras)])
    columns = ["input", *(f"{yaw:+g}°" for yaw in config.yaws)]
    caption = f"Fig. {config.figure}: inversions from further cameras."
    return write(config, sheet(rows, columns, names(config.subjects)[shown], caption=caption))


def part_of(config: FiguresConfig) -> slice:
    """Which of the subjects one of the two halves of a figure shows: 14 and 15, 17 and 18."""
    half = -(-len(config.subjects) // 2)
    return slice(half) if config.figure in (14, 17) else slice(half, None)


def check_cats(config: FiguresConfig) -> None:
    """Raises: ValueError unless the subjects are cats."""
    if not config.cats:
        raise ValueError(
            f"figure {config.figure} shows cats, which the mini world does not have: it needs the full world, that is "
            f"afhqcats512-128.pkl, AFHQv2 and a run of experiment=afhq_cat; then give pictures=cats"
        )


def subjects(config: FiguresConfig, numbers: Sequence[int] | None = None) -> list[Subject]:
    """The test images of these numbers; None: of `config.subjects`. Raises: ValueError if one is not there."""
    images = PosedImages(config.images)
    numbers = config.subjects if numbers is None else numbers
    if not numbers or max(numbers) >= len(images) or min(numbers) < 0:
        raise ValueError(f"subjects is {list(numbers)}; expected numbers from 0 below {len(images)}, see images")
    items = [images[i] for i in numbers]
    return [Subject(str(item["name"]), item["image"][None], item["c"][None]) for item in items]


def names(numbers: Sequence[int]) -> list[str]:
    """What stands left of each subject's row."""
    return [f"image {number}" for number in numbers]


def write(config: FiguresConfig, png: bytes) -> Path:
    """Write the picture."""
    path = Path(config.output) / f"figure-{config.figure}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png)
    return path


INVERSION_FIGURES: dict[int, Callable[[FiguresConfig], Path]] = {
    6: comparison,
    7: ablation_of_encoders,
    8: ablation_of_alignment,
    9: ablation_of_mix,
    12: comparison,
    13: comparison,
    14: views,
    15: views,
    16: cat_views,
}
