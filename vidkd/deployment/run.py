"""Print the actions in a video as `vidkd detect --json` does: python run.py VIDEO [THRESHOLD]."""
import json, sys
from itertools import chain, count, islice
from pathlib import Path
import av
import numpy as np
from av.video.reformatter import VideoReformatter
import onnxruntime
def load(path):
    graph = onnxruntime.InferenceSession(path)
    return lambda *x: graph.run(None, {item.name: own for item, own in zip(graph.get_inputs(), x)})
def frames(path, side, rate):  # upright, with the second of each; at last None and the end
    picture, scale, stream = None, VideoReformatter().reformat, av.open(path).streams.video[0]
    for frame in chain(stream.container.decode(stream), [None]):
        now = float(frame.pts * frame.time_base) if frame else begin + length
        if picture is None:
            w, h = round(frame.width * (stream.sample_aspect_ratio or 1)), frame.height
            long = 2 * int(max(w, h) * side / min(w, h) / 2 + 0.5)
            size, zero = (side, long) if w <= h else (long, side), now
            ranges = (frame.color_range, 2) if frame.color_range in (1, 2) else ()
        else:
            ends = np.ceil((np.array([begin, now]) - zero - 1e-6) * (rate or 1))
            seconds = np.arange(*ends) / rate if rate else [begin - zero]
            yield from ((picture, second) for second in seconds)
        if frame:
            begin, length = now, float(frame.duration * frame.time_base)
            image = scale(frame, *size, "rgb24", None, None, "BILINEAR", *ranges).to_ndarray()
            picture = np.rot90(image, round(frame.rotation / 90))
    yield None, now - zero

def clear(classes, shortest, label, score, start, end):  # of two that overlap, the better is whole
    found = []
    for n in np.argsort(-score, kind="stable"):
        a, b, name = start[n], end[n], classes[label[n]]
        for c, d, other, _ in found:
            if other == name and a < d and c < b:
                a, b = max((a, min(b, c)), (max(a, d), b), key=lambda part: part[1] - part[0])
        if b - a >= max(shortest - 1e-9, (end[n] - start[n]) / 2, 1e-9):
            found.append((float(a), float(b), name, float(score[n])))
    return [{"label": name, "score": s, "segment": [a, b]} for a, b, name, s in sorted(found)]

def detect(path, threshold=None, folder=Path(__file__).parent):  # segments, scores (T, K), times
    spec = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    encode, find = (load(folder / spec["graphs"][name]["file"]) for name in ("encoder", "filter"))
    stride, window, clip = (spec["snippets"][key] for key in ("stride", "window", "clip"))
    stream, held, rows, times = frames(path, spec["short_side"], spec["frame_rate"]), [], [], []
    for first in count(0, stride):
        held += islice(stream, max(0, first + max(window, clip[-1] + 1) + 1 - len(held)))
        total = len(held) - (held[-1][0] is None)
        if first and total <= first + max(0, window - stride): break
        done = max(first + min(clip[0], 0), 0)  # no snippet from here on needs what is before
        held[max(done - stride, 0) : done] = [None] * min(done, stride)
        images = [held[min(max(first + n, 0), total - 1)][0] for n in clip]
        rows.append(encode(np.stack(images)[None])[0][0])
        times.append((held[first][1], held[min(first + window, total)][1]))
    limit = np.array(threshold or spec["threshold"], np.float64)
    scores, *found = find(np.stack(rows), np.array(times), limit)
    return clear(spec["classes"], spec["minimum_seconds"], *found), scores, np.array(times)
if __name__ == "__main__":
    print(json.dumps({"results": {Path(sys.argv[1]).stem: detect(*sys.argv[1:])[0]}}, indent=2))
