// deconv-shuffle: transposed 4 x 4 convolution, stride 2, padding 1, then a pixel shuffle by 2: four times the size.
//   x [height + 2, width + 2, into] of T    weight [into / 4, 4, 4, 4 * 4 * planes] of T    bias [4 * planes] of f32
//   y [planes, 4 * height, 4 * width] of f32
// The pixels (2 i + py, 2 j + px) of the transposed convolution read the 2 x 2 pixels of x from (i - 1 + py, j - 1 + px) on;
// `weight` has, for each pair (py, px), the four weights in the order of these pixels. Channel 4 k + 2 dy + dx goes to plane k,
// so that the four channels of an invocation are 2 x 2 pixels of one plane. x has a border of one pixel of zeros.
// An invocation makes them for 4 x 4 pixels of x. Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  lanes: u32,   // invocations of a workgroup that share their pixels; the others have the next ones
  height: u32,  // of x
  width: u32,
  into: u32,    // channels / 4
  planes: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec2f>;
@group(0) @binding(4) var<uniform> params: Params;

/** Four neighbouring pixels, and the same one further to the right. */
struct Row {
  here: mat4x4f,
  right: mat4x4f,
}

fn row(at: u32) -> Row {
  let into = params.into;
  let p0 = vec4f(x[at]);
  let p1 = vec4f(x[at + into]);
  let p2 = vec4f(x[at + 2 * into]);
  let p3 = vec4f(x[at + 3 * into]);
  return Row(mat4x4f(p0, p1, p2, p3), mat4x4f(p1, p2, p3, vec4f(x[at + 4 * into])));
}

fn matrix(at: u32) -> mat4x4f {
  let out = 4 * params.planes;
  return mat4x4f(vec4f(weight[at]), vec4f(weight[at + out]), vec4f(weight[at + 2 * out]), vec4f(weight[at + 3 * out]));
}

/** Stores what a row of pixels makes; `at` is the first pair of pixels of y. */
fn storeRow(at: u32, values: mat4x4f, columns: u32) {
  let yRow = 2 * params.width;
  y[at] = values[0].xy;
  y[at + yRow] = values[0].zw;
  if (columns > 1) { y[at + 2] = values[1].xy; y[at + 2 + yRow] = values[1].zw; }
  if (columns > 2) { y[at + 4] = values[2].xy; y[at + 4 + yRow] = values[2].zw; }
  if (columns > 3) { y[at + 6] = values[3].xy; y[at + 6 + yRow] = values[3].zw; }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let wide = (params.width + 3) / 4;
  let squares = wide * ((params.height + 3) / 4);
  let rows = WORKGROUP / params.lanes;
  let groups = (squares + rows - 1) / rows;
  let index = group.y * grid.x + group.x;
  let square = (index % groups) * rows + local / params.lanes;
  let lane = (index / groups) * params.lanes + local % params.lanes;
  let out = 4 * params.planes;
  if (square >= squares || lane >= out) { return; }
  let px = (square % wide) * 4;
  let py = (square / wide) * 4;
  let plane = lane % params.planes;
  let phase = vec2u(lane / params.planes % 2, lane / params.planes / 2);

  let into = params.into;
  let xRow = (params.width + 2) * into;
  let corner = (py + phase.y) * xRow + (px + phase.x) * into;
  var y0 = mat4x4f(bias[plane], bias[plane], bias[plane], bias[plane]);
  var y1 = y0;
  var y2 = y0;
  var y3 = y0;
  for (var channel = 0u; channel < into; channel++) {
    let at = corner + channel;
    let wAt = channel * 16 * out + lane;
    let w0 = matrix(wAt);
    let w1 = matrix(wAt + 4 * out);
    let w2 = matrix(wAt + 8 * out);
    let w3 = matrix(wAt + 12 * out);
    let r0 = row(at);
    let r1 = row(at + xRow);
    let r2 = row(at + 2 * xRow);
    let r3 = row(at + 3 * xRow);
    let r4 = row(at + 4 * xRow);
    y0 += w0 * r0.here + w1 * r0.right + w2 * r1.here + w3 * r1.right;
    y1 += w0 * r1.here + w1 * r1.right + w2 * r2.here + w3 * r2.right;
    y2 += w0 * r2.here + w1 * r2.right + w2 * r3.here + w3 * r3.right;
    y3 += w0 * r3.here + w1 * r3.right + w2 * r4.here + w3 * r4.right;
  }

  let yRow = 2 * params.width; // pairs of pixels
  let at = (plane * 4 * params.height + 4 * py + 2 * phase.y) * yRow + 2 * px + phase.x;
  let columns = params.width - px;
  storeRow(at, y0, columns);
  if (py + 1 < params.height) { storeRow(at + 4 * yRow, y1, columns); }
  if (py + 2 < params.height) { storeRow(at + 8 * yRow, y2, columns); }
  if (py + 3 < params.height) { storeRow(at + 12 * yRow, y3, columns); }
}
