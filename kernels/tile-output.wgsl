// tile-output: the last layer of a network, a 1 x 1 convolution to three channels, as part of a frame's planes.
//   x [height + 2, width + 2, into] of T    weight [into] of rgb0, bias one rgb0    rgb [3, frameHeight, frameWidth] in -1..1
// Pixels (xTop, xLeft) on of x go to (top, left) on of the frame. Neighbouring tiles overlap and fade into each other: a weight
// rises linearly over the first `fade.x` rows (`fade.z` columns) and falls over the last `fade.y` (`fade.w`). Tiles come row by row,
// so that all but the first to touch a pixel lie in the rising part there, and add; the first one stores.
// x has a border of one pixel, which is not read. Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  rows: u32,
  columns: u32,
  width: u32,        // of x
  into: u32,         // channels / 4
  xTop: u32,
  xLeft: u32,
  top: u32,
  left: u32,
  frameHeight: u32,
  frameWidth: u32,
  fadeTop: u32,
  fadeBottom: u32,
  fadeLeft: u32,
  fadeRight: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4f>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> rgb: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

/** Share of a tile at place `i` of `length`. */
fn share(i: u32, length: u32, rise: u32, fall: u32) -> f32 {
  var value = 1.0;
  if (i < rise) { value = (f32(i) + 0.5) / f32(rise); }
  if (length - i <= fall) { value *= (f32(length - i) - 0.5) / f32(fall); }
  return value;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= params.rows * params.columns) { return; }
  let row = index / params.columns;
  let column = index % params.columns;
  let begin = ((params.xTop + row + 1) * (params.width + 2) + params.xLeft + column + 1) * params.into;
  var sum = bias[0];
  for (var i = 0u; i < params.into; i++) {
    let value = vec4f(x[begin + i]);
    sum += value.x * weight[4 * i] + value.y * weight[4 * i + 1];
    sum += value.z * weight[4 * i + 2] + value.w * weight[4 * i + 3];
  }
  let color = (2 * sum.rgb - 1) * share(row, params.rows, params.fadeTop, params.fadeBottom)
            * share(column, params.columns, params.fadeLeft, params.fadeRight);
  let plane = params.frameHeight * params.frameWidth;
  let at = (params.top + row) * params.frameWidth + params.left + column;
  if (row < params.fadeTop || column < params.fadeLeft) {
    rgb[at] += color.r;
    rgb[at + plane] += color.g;
    rgb[at + 2 * plane] += color.b;
  } else {
    rgb[at] = color.r;
    rgb[at + plane] = color.g;
    rgb[at + 2 * plane] = color.b;
  }
}
