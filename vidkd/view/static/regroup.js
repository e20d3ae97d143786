// Segments from dense scores, by the rule of `vidkd.detection.segments.clear_segments`.

/**
 * Read what `vidkd.view.project.pack_scores` writes.
 * @param {ArrayBuffer} buffer
 * @returns {{rows: number, classes: number, borders: Float64Array, scores: Float32Array}} scores
 *   are class after class.
 */
export function unpackScores(buffer) {
  const [rows, classes] = new Uint32Array(buffer, 0, 2);
  const borders = new Float64Array(buffer, 8, rows + 1);
  return { rows, classes, borders, scores: new Float32Array(buffer, 16 + 8 * rows, rows * classes) };
}

/**
 * Runs of rows at `release` or more that reach `threshold`, as [start, end, class number, score];
 * the score is the mean over time inside.
 */
export function regroup(dense, threshold, release = 0.6 * threshold) {
  const { rows, classes, borders, scores } = dense;
  const found = [];
  for (let k = 0; k < classes; k++) {
    const offset = k * rows;
    let first = -1, reached = false, area = 0, before = 0;
    for (let t = 0; t <= rows; t++) {
      const score = t < rows ? scores[offset + t] : -Infinity;
      if (score >= release) {
        if (first < 0) { first = t; reached = false; before = area; }
        if (score >= threshold) reached = true;
      } else if (first >= 0) {
        if (reached) {
          const length = borders[t] - borders[first];
          found.push([borders[first], borders[t], k, (area - before) / length]);
        }
        first = -1;
      }
      if (t < rows) area += score * (borders[t + 1] - borders[t]);
    }
  }
  return found;
}
