// pyramid-conv: convolution of a picture with LeakyReLU, into some of the channels of y.
//   x [height + 2, width + 2, into] of T, for KERNEL 2 half as high and as wide    y [height + 2, width + 2, yChannels] of T
//   weight [into / 4, KERNEL * KERNEL, 4, out] of T                                bias [out] of f32
// KERNEL 3 reads the pixel and its neighbours, 1 the pixel alone. KERNEL 2 reads x as if every pixel were repeated 2 x 2: the
// pixel and those right, below and both. Channels are last and come in fours. Pictures have a border of one pixel of zeros,
// which this kernel reads and never writes. An invocation makes 4 x 4 pixels of 4 channels: four matrices, one for each row,
// with a column for each pixel. A launch makes the rows from `first` on.
// Prelude: alias T, const KERNEL.
override WORKGROUP: u32;

struct Params {
  lanes: u32,      // invocations of a workgroup that share their pixels; the others have the next ones
  first: u32,      // row of y, a multiple of 4
  rows: u32,       // of this launch
  width: u32,      // of y
  into: u32,       // channels / 4
  out: u32,        // channels / 4
  yChannels: u32,  // channels / 4
  yOffset: u32,    // channels / 4
  slope: f32,      // of LeakyReLU below zero
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(4) var<uniform> params: Params;

/** Four pixels in a row, and as the columns of the kernel to the left and to the right see them. */
struct Row {
  left: mat4x4f,
  here: mat4x4f,
  right: mat4x4f,
}

/** Weights of up to three pixels in a row: 4 input channels to 4 output channels each. */
struct Taps {
  left: mat4x4f,
  here: mat4x4f,
  right: mat4x4f,
}

fn load(at: u32) -> vec4f { return vec4f(x[at]); }

fn row(at: u32) -> Row {
  let into = params.into;
  let p0 = load(at);
  let p1 = load(at + into);
  let p2 = load(at + 2 * into);
  let p3 = load(at + 3 * into);
  let p4 = load(at + 4 * into);
  let p5 = load(at + 5 * into);
  return Row(mat4x4f(p0, p1, p2, p3), mat4x4f(p1, p2, p3, p4), mat4x4f(p2, p3, p4, p5));
}

fn four(at: u32) -> mat4x4f {
  let into = params.into;
  return mat4x4f(load(at), load(at + into), load(at + 2 * into), load(at + 3 * into));
}

/** Four pixels of the doubled picture and those to their right; `left` is not used. */
fn doubled(at: u32) -> Row {
  let into = params.into;
  let p0 = load(at);
  let p1 = load(at + into);
  let p2 = load(at + 2 * into);
  return Row(mat4x4f(), mat4x4f(p0, p0, p1, p1), mat4x4f(p0, p1, p1, p2));
}

fn matrix(at: u32) -> mat4x4f {
  let out = params.out;
  return mat4x4f(vec4f(weight[at]), vec4f(weight[at + out]), vec4f(weight[at + 2 * out]), vec4f(weight[at + 3 * out]));
}

fn taps(at: u32) -> Taps {
  return Taps(matrix(at), matrix(at + 4 * params.out), matrix(at + 8 * params.out));
}

fn pair(at: u32) -> Taps {
  return Taps(mat4x4f(), matrix(at), matrix(at + 4 * params.out));
}

fn apply(w: Taps, r: Row) -> mat4x4f {
  return w.left * r.left + w.here * r.here + w.right * r.right;
}

fn applyPair(w: Taps, r: Row) -> mat4x4f {
  return w.here * r.here + w.right * r.right;
}

fn store(at: u32, value: vec4f) {
  y[at] = vec4<T>(select(value, value * params.slope, value < vec4f(0)));
}

fn storeRow(at: u32, values: mat4x4f, columns: u32) {
  let stride = params.yChannels;
  store(at, values[0]);
  if (columns > 1) { store(at + stride, values[1]); }
  if (columns > 2) { store(at + 2 * stride, values[2]); }
  if (columns > 3) { store(at + 3 * stride, values[3]); }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) local: u32) {
  let wide = (params.width + 3) / 4;
  let squares = wide * ((params.rows + 3) / 4);
  let perGroup = WORKGROUP / params.lanes;
  let groups = (squares + perGroup - 1) / perGroup;
  let index = group.y * grid.x + group.x;
  let square = (index % groups) * perGroup + local / params.lanes;
  let lane = (index / groups) * params.lanes + local % params.lanes;
  if (square >= squares || lane >= params.out) { return; }
  let px = (square % wide) * 4;
  let dy = (square / wide) * 4;
  let py = params.first + dy;

  let into = params.into;
  var y0 = mat4x4f(bias[lane], bias[lane], bias[lane], bias[lane]);
  var y1 = y0;
  var y2 = y0;
  var y3 = y0;
  if (KERNEL == 3) {
    let xRow = (params.width + 2) * into;
    for (var channel = 0u; channel < into; channel++) {
      let at = py * xRow + px * into + channel;
      let wAt = channel * 36 * params.out + lane;
      let w0 = taps(wAt);
      let w1 = taps(wAt + 12 * params.out);
      let w2 = taps(wAt + 24 * params.out);
      let r0 = row(at);
      let r1 = row(at + xRow);
      let r2 = row(at + 2 * xRow);
      let r3 = row(at + 3 * xRow);
      let r4 = row(at + 4 * xRow);
      let r5 = row(at + 5 * xRow);
      y0 += apply(w0, r0) + apply(w1, r1) + apply(w2, r2);
      y1 += apply(w0, r1) + apply(w1, r2) + apply(w2, r3);
      y2 += apply(w0, r2) + apply(w1, r3) + apply(w2, r4);
      y3 += apply(w0, r3) + apply(w1, r4) + apply(w2, r5);
    }
  } else if (KERNEL == 2) {
    let xRow = (params.width / 2 + 2) * into;
    for (var channel = 0u; channel < into; channel++) {
      let at = (py / 2 + 1) * xRow + (px / 2 + 1) * into + channel;
      let wAt = channel * 16 * params.out + lane;
      let w0 = pair(wAt);
      let w1 = pair(wAt + 8 * params.out);
      let r0 = doubled(at);
      let r1 = doubled(at + xRow);
      let r2 = doubled(at + 2 * xRow);
      y0 += applyPair(w0, r0) + applyPair(w1, r0);
      y1 += applyPair(w0, r0) + applyPair(w1, r1);
      y2 += applyPair(w0, r1) + applyPair(w1, r1);
      y3 += applyPair(w0, r1) + applyPair(w1, r2);
    }
  } else {
    let xRow = (params.width + 2) * into;
    for (var channel = 0u; channel < into; channel++) {
      let at = (py + 1) * xRow + (px + 1) * into + channel;
      let w = matrix(channel * 4 * params.out + lane);
      y0 += w * four(at);
      y1 += w * four(at + xRow);
      y2 += w * four(at + 2 * xRow);
      y3 += w * four(at + 3 * xRow);
    }
  }

  let yRow = (params.width + 2) * params.yChannels;
  let at = (py + 1) * yRow + (px + 1) * params.yChannels + params.yOffset + lane;
  let columns = params.width - px;
  storeRow(at, y0, columns);
  if (dy + 1 < params.rows) { storeRow(at + yRow, y1, columns); }
  if (dy + 2 < params.rows) { storeRow(at + 2 * yRow, y2, columns); }
  if (dy + 3 < params.rows) { storeRow(at + 3 * yRow, y3, columns); }
}
