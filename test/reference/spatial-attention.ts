/**
 * softmax(q kᵀ / sqrt(C)) v in float64 for one head over the positions of a frame. qkv [height + 2, width + 2, 3, C];
 * gives [height + 2, width + 2, C] with a border of zeros.
 */
export function spatialAttentionReference(
  qkv: ArrayLike<number>,
  height: number,
  width: number,
  channels: number,
): Float64Array {
  const y = new Float64Array((height + 2) * (width + 2) * channels);
  const places: number[] = [];
  for (let row = 1; row <= height; row++) {
    for (let column = 1; column <= width; column++) places.push(row * (width + 2) + column);
  }
  for (const query of places) {
    const scores = places.map((key) => {
      let dot = 0;
      for (let c = 0; c < channels; c++) dot += qkv[query * 3 * channels + c]! * qkv[(key * 3 + 1) * channels + c]!;
      return dot / Math.sqrt(channels);
    });
    const largest = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - largest));
    const sum = weights.reduce((a, b) => a + b);
    for (let c = 0; c < channels; c++) {
      let value = 0;
      places.forEach((key, i) => {
        value += weights[i]! * qkv[(key * 3 + 2) * channels + c]!;
      });
      y[query * channels + c] = value / sum;
    }
  }
  return y;
}
