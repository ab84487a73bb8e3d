// causal-conv: convolution over `taps` frames (the present one and those before it) and, where SPATIAL, 3 x 3 pixels.
//   x [xFirst + xFrames or more, xHeight + 2, xWidth + 2, into] of X, or of f16 in packed pairs where PACKED
//   y [frames * parts, height + 2, width + 2, out / parts] of T
//   weight [taps, into / 4, pixels, 4, out] of T    bias [out] of f32
// x is a part of the sequence: its first frame is number `begin`, and tap k of frame t wants number t + k. Products with
// frames that x lacks are another dispatch's, which goes on with the sum in y.
// Channels are last and come in fours. Frames have a border of one pixel of zeros, which this kernel reads and never
// writes. An invocation makes 4 x 4 pixels of 4 channels: four matrices, one for each row, a column for each pixel.
// On SwiftShader a load costs as much as ten multiply-adds, and this square takes one load for eight.
// Prelude: alias T, alias X, const SPATIAL, const PACKED.
override WORKGROUP: u32;

struct Params {
  first: u32,      // number of this dispatch's first workgroup
  lanes: u32,      // invocations of a workgroup that share their pixels; the others have the next ones
  frames: u32,
  height: u32,     // of y
  width: u32,
  into: u32,       // channels / 4
  out: u32,        // channels / 4
  taps: u32,
  parts: u32,      // frames of y for each present frame of x, one after the other in the output channels
  xHeight: u32,
  xWidth: u32,
  doubling: u32,   // 1: x is read as if every pixel were repeated 2 x 2
  top: u32,        // row of x (after doubling) at which y begins
  left: u32,
  accumulate: u32, // 1: adds to what y holds
  xFirst: u32,     // frame of x that counts as its first
  xFrames: u32,
  begin: u32,
  turned: u32,     // 1: the two frames of x lie in x the other way round
  started: u32,    // frames of y that hold the bias and the products of another part of the sequence
}

@group(0) @binding(0) var<storage, read> x: array<vec4<X>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<T>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(4) var<uniform> params: Params;

/** Four neighbouring pixels, three times: from one pixel to the left, in place, and from one to the right. */
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

/** Four channels of x. Pairs of half floats are unpacked here, so that no device needs shader-f16 for them. */
fn load(at: u32) -> vec4f {
  if (PACKED) {
    let two = vec4u(x[at / 2]);
    let one = select(two.xy, two.zw, at % 2 == 1);
    return vec4f(unpack2x16float(one.x), unpack2x16float(one.y));
  }
  return vec4f(x[at]);
}

fn row(at: u32, a: vec3u, b: vec3u) -> Row {
  let p0 = load(at + a.x);
  let p1 = load(at + a.y);
  let p2 = load(at + a.z);
  let p3 = load(at + b.x);
  let p4 = load(at + b.y);
  let p5 = load(at + b.z);
  return Row(mat4x4f(p0, p1, p2, p3), mat4x4f(p1, p2, p3, p4), mat4x4f(p2, p3, p4, p5));
}

fn four(at: u32, a: vec3u, b: vec3u) -> mat4x4f {
  return mat4x4f(load(at + a.y), load(at + a.z), load(at + b.x), load(at + b.y));
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

/** Offsets in x of three neighbours on an axis, the first one pixel before `i`. */
fn neighbours(i: u32, stride: u32) -> vec3u {
  let at = vec3u(i, i + 1, i + 2);
  return select(at, (at + 1) / 2, params.doubling == 1) * stride;
}

fn held(at: u32, stride: u32) -> mat4x4f {
  return mat4x4f(vec4f(y[at]), vec4f(y[at + stride]), vec4f(y[at + 2 * stride]), vec4f(y[at + 3 * stride]));
}

fn store(at: u32, values: mat4x4f, columns: u32, stride: u32) {
  y[at] = vec4<T>(values[0]);
  if (columns > 1) { y[at + stride] = vec4<T>(values[1]); }
  if (columns > 2) { y[at + 2 * stride] = vec4<T>(values[2]); }
  if (columns > 3) { y[at + 3 * stride] = vec4<T>(values[3]); }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let wide = (params.width + 3) / 4;
  let high = (params.height + 3) / 4;
  let squares = params.frames * high * wide;
  let rows = WORKGROUP / params.lanes;
  let groups = (squares + rows - 1) / rows;
  let index = params.first + group.x;
  let square = (index % groups) * rows + local / params.lanes;
  let lane = (index / groups) * params.lanes + local % params.lanes;
  if (square >= squares || lane >= params.out) { return; }
  let px = (square % wide) * 4;
  let py = (square / wide) % high * 4;
  let t = square / (wide * high);

  let into = params.into;
  let xRow = (params.xWidth + 2) * into;
  let xFrame = (params.xHeight + 2) * xRow;
  let a = neighbours(params.left + px, into);
  let b = neighbours(params.left + px + 3, into);
  let c = neighbours(params.top + py, xRow);
  let d = neighbours(params.top + py + 3, xRow);
  let channels = params.out / params.parts;
  let yRow = (params.width + 2) * channels;
  let frame = t * params.parts + lane / channels;
  let place = (frame * (params.height + 2) + py + 1) * yRow + (px + 1) * channels + lane % channels;

  // One sum from the first product to the last, in one order, whatever the parts of the sequence.
  var y0 = mat4x4f();
  var y1 = y0;
  var y2 = y0;
  var y3 = y0;
  if (params.accumulate == 1 || t < params.started) {
    // Pixels past the edge are read from wherever that is, and never stored.
    y0 = held(place, channels);
    y1 = held(place + yRow, channels);
    y2 = held(place + 2 * yRow, channels);
    y3 = held(place + 3 * yRow, channels);
  }
  if (t >= params.started) {
    let offset = mat4x4f(bias[lane], bias[lane], bias[lane], bias[lane]);
    y0 += offset;
    y1 += offset;
    y2 += offset;
    y3 += offset;
  }
  // The taps whose frames x has. Passing over the others inside the loop makes it a fifth slower on SwiftShader.
  let firstTap = max(t, params.begin) - t;
  let endTap = min(params.taps, max(t, params.begin + params.xFrames) - t);
  for (var tap = firstTap; tap < endTap; tap++) {
    let xAt = (params.xFirst + ((t + tap - params.begin) ^ params.turned)) * xFrame;
    for (var channel = 0u; channel < into; channel++) {
      let at = xAt + channel;
      if (SPATIAL) {
        let wAt = (tap * into + channel) * 36 * params.out + lane;
        let w0 = taps(wAt);
        let w1 = taps(wAt + 12 * params.out);
        let w2 = taps(wAt + 24 * params.out);
        let r0 = row(at + c.x, a, b);
        let r1 = row(at + c.y, a, b);
        let r2 = row(at + c.z, a, b);
        let r3 = row(at + d.x, a, b);
        let r4 = row(at + d.y, a, b);
        let r5 = row(at + d.z, a, b);
        y0 += apply(w0, r0) + apply(w1, r1) + apply(w2, r2);
        y1 += apply(w0, r1) + apply(w1, r2) + apply(w2, r3);
        y2 += apply(w0, r2) + apply(w1, r3) + apply(w2, r4);
        y3 += apply(w0, r3) + apply(w1, r4) + apply(w2, r5);
      } else {
        let w = matrix((tap * into + channel) * 4 * params.out + lane);
        y0 += w * four(at + c.y, a, b);
        y1 += w * four(at + c.z, a, b);
        y2 += w * four(at + d.x, a, b);
        y3 += w * four(at + d.y, a, b);
      }
    }
  }

  let columns = params.width - px;
  store(place, y0, columns, channels);
  if (py + 1 < params.height) { store(place + yRow, y1, columns, channels); }
  if (py + 2 < params.height) { store(place + 2 * yRow, y2, columns, channels); }
  if (py + 3 < params.height) { store(place + 3 * yRow, y3, columns, channels); }
}
