import type { CropPlanesShape } from '../../kernels/crop-planes';

/** Copies the rectangle into y in place. */
export function cropPlanesReference(x: ArrayLike<number>, y: Float32Array, shape: Omit<CropPlanesShape, 'type'>): void {
  const { frames, toFrames, toFrame, from, fromAt, to, toAt, size } = shape;
  for (let color = 0; color < 3; color++) {
    for (let frame = 0; frame < frames; frame++) {
      for (let row = 0; row < size[0]; row++) {
        for (let column = 0; column < size[1]; column++) {
          const xRow = frame * (from[0] + 2) + fromAt[0] + row + 1;
          const xAt = (xRow * (from[1] + 2) + fromAt[1] + column + 1) * 4 + color;
          const yAt = ((color * toFrames + toFrame + frame) * to[0] + toAt[0] + row) * to[1] + toAt[1] + column;
          y[yAt] = x[xAt]!;
        }
      }
    }
  }
}
