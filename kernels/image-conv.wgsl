// image-conv: 3 x 3 convolution of a picture with LeakyReLU; where RESIDUAL, leaky(convolution + x).
//   x [STRIDE * height + 2, STRIDE * width + 2, into]    y [height + 2, width + 2, out] of T
//   weight [into / 4, 9, 4, out] of T                    bias [out] of f32
// Channels are last and come in fours. Pictures have a border of one pixel of zeros, which this kernel reads and never
// writes. An invocation makes 4 x 4 pixels of 4 channels: four matrices, one for each row, with a column for each pixel.
// Prelude: alias T, const STRIDE, const RESIDUAL.
override WORKGROUP: u32;

struct Params {
  lanes: u32,      // invocations of a workgroup that share their pixels; the others have the next ones
  height: u32,     // of y
  width: u32,
  into: u32,       // channels / 4
  out: u32,        // channels / 4
  slope: f32,      // of LeakyReLU below zero
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(4) var<uniform> params: Params;

/** What the three columns of the kernel read for four pixels in a row. */
struct Row {
  left: mat4x4f,
  here: mat4x4f,
  right: mat4x4f,
}

/** Weights of three pixels in a row: 4 input channels to 4 output channels each. */
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
  if (STRIDE == 1) { return Row(mat4x4f(p0, p1, p2, p3), mat4x4f(p1, p2, p3, p4), mat4x4f(p2, p3, p4, p5)); }
  let p6 = load(at + 6 * into);
  let p7 = load(at + 7 * into);
  let p8 = load(at + 8 * into);
  return Row(mat4x4f(p0, p2, p4, p6), mat4x4f(p1, p3, p5, p7), mat4x4f(p2, p4, p6, p8));
}

fn matrix(at: u32) -> mat4x4f {
  let out = params.out;
  return mat4x4f(vec4f(weight[at]), vec4f(weight[at + out]), vec4f(weight[at + 2 * out]), vec4f(weight[at + 3 * out]));
}

fn taps(at: u32) -> Taps {
  return Taps(matrix(at), matrix(at + 4 * params.out), matrix(at + 8 * params.out));
}

fn apply(w: Taps, r: Row) -> mat4x4f {
  return w.left * r.left + w.here * r.here + w.right * r.right;
}

fn leaky(value: vec4f) -> vec4f { return select(value, value * params.slope, value < vec4f(0)); }

fn store(at: u32, value: vec4f) {
  if (RESIDUAL) {
    y[at] = vec4<T>(leaky(value + load(at)));
  } else {
    y[at] = vec4<T>(leaky(value));
  }
}

fn storeRow(at: u32, values: mat4x4f, columns: u32) {
  store(at, values[0]);
  if (columns > 1) { store(at + params.out, values[1]); }
  if (columns > 2) { store(at + 2 * params.out, values[2]); }
  if (columns > 3) { store(at + 3 * params.out, values[3]); }
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
  if (square >= squares || lane >= params.out) { return; }
  let px = (square % wide) * 4;
  let py = (square / wide) * 4;

  let into = params.into;
  let xRow = (STRIDE * params.width + 2) * into;
  let corner = STRIDE * (py * xRow + px * into);
  var y0 = mat4x4f(bias[lane], bias[lane], bias[lane], bias[lane]);
  var y1 = y0;
  var y2 = y0;
  var y3 = y0;
  for (var channel = 0u; channel < into; channel++) {
    let at = corner + channel;
    let wAt = channel * 36 * params.out + lane;
    if (STRIDE == 1) {
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
    } else {
      // A loop over the kernel's rows: written out like the above, SwiftShader compiles this for four seconds.
      for (var dy = 0u; dy < 3; dy++) {
        let w = taps(wAt + dy * 12 * params.out);
        let top = at + dy * xRow;
        y0 += apply(w, row(top));
        y1 += apply(w, row(top + 2 * xRow));
        y2 += apply(w, row(top + 4 * xRow));
        y3 += apply(w, row(top + 6 * xRow));
      }
    }
  }

  let yRow = (params.width + 2) * params.out;
  let at = (py + 1) * yRow + (px + 1) * params.out + lane;
  let columns = params.width - px;
  storeRow(at, y0, columns);
  if (py + 1 < params.height) { storeRow(at + yRow, y1, columns); }
  if (py + 2 < params.height) { storeRow(at + 2 * yRow, y2, columns); }
  if (py + 3 < params.height) { storeRow(at + 3 * yRow, y3, columns); }
}
