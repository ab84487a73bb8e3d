// image-deconv: transposed 4 x 4 convolution, stride 2, padding 1: twice the size, into some channels of a picture.
//   x [height + 2, width + 2, 4 * into] of T    weight [into, 4 pixels, 4, 4 phases * 4 * out] of T    bias [4 * out] of f32
//   y [2 * height, 2 * width, 4 * LAYERS] of f32, of which layers OFFSET to OFFSET + out - 1 are set
// The pixels (2 i + py, 2 j + px) read the 2 x 2 pixels of x from (i - 1 + py, j - 1 + px) on; `weight` has, for each pair (py, px),
// the four weights in the order of these pixels. x has a border of one pixel of zeros. An invocation makes 4 channels of a pixel.
// Prelude: alias T, const LAYERS, const OFFSET.
override WORKGROUP: u32;

struct Params {
  height: u32,  // of x
  width: u32,
  into: u32,    // channels / 4
  out: u32,     // channels / 4
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let out = params.out;
  let wide = 2 * params.width;
  if (index >= 2 * params.height * wide * out) { return; }
  let four = index % out;
  let pixel = index / out;
  let column = pixel % wide;
  let row = pixel / wide;
  let phase = 2 * (row & 1) + (column & 1);

  let into = params.into;
  let xRow = (params.width + 2) * into;
  // Within the border, pixel (i - 1 + py) of x is row i + py.
  let corner = (row / 2 + (row & 1)) * xRow + (column / 2 + (column & 1)) * into;
  var sum = bias[four];
  for (var channel = 0u; channel < into; channel++) {
    for (var near = 0u; near < 4; near++) {
      let value = vec4f(x[corner + (near >> 1) * xRow + (near & 1) * into + channel]);
      let at = (((channel * 4 + near) * 4) * 4 + phase) * out + four;
      for (var i = 0u; i < 4; i++) { sum += value[i] * vec4f(weight[at + i * 4 * out]); }
    }
  }
  y[LAYERS * pixel + OFFSET + four] = sum;
}
