// flow-features: what a block of the flow network reads, at 1 / scale of the pictures' size.
//   before, after [height, width, 4 * LAYERS] of f32: rgb in 0..1, a zero, and what the encoder made of the picture
//   flow [height, width] in pixels (x, y into before; x, y into after), mask [height, width], both of f32
//   head [5 + 4 * PASSED, height / headScale, width / headScale] of f32: the last block's, planes 5 on are passed on
//   x [height / scale + 2, width / scale + 2, channels] of T
// FIRST: channels are before (3), after (3), both encoded (4 * (LAYERS - 1) each), time, 0. Else: the same, warped by the flow,
// time, mask, what is passed on (4 * PASSED), flow / scale (4). Pictures are resized without antialiasing, half-pixel centres:
// with an even scale a value is the mean of the 2 x 2 values in the middle of its square. A warp reads bilinearly, its
// coordinates clamped to the picture. x has a border of one pixel, which this kernel never writes.
// Prelude: alias T, const FIRST, const LAYERS, const PASSED.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  scale: u32,
  headScale: u32,
  time: f32,
}

@group(0) @binding(0) var<storage, read> before: array<vec4f>;
@group(0) @binding(1) var<storage, read> after: array<vec4f>;
@group(0) @binding(2) var<storage, read> flow: array<vec4f>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read> head: array<f32>;
@group(0) @binding(5) var<storage, read_write> x: array<vec4<T>>;
@group(0) @binding(6) var<uniform> params: Params;

/** The four pixels that a position lies between, and its place among them. */
struct Place {
  at: vec4u,
  share: vec2f,
}

fn place(position: vec2f) -> Place {
  let last = vec2f(f32(params.width - 1), f32(params.height - 1));
  let inside = clamp(position, vec2f(0), last);
  let corner = floor(inside);
  let low = vec2u(corner);
  let high = vec2u(min(corner + 1, last));
  let rows = vec2u(low.y, high.y) * params.width;
  return Place(LAYERS * vec4u(rows.x + low.x, rows.x + high.x, rows.y + low.x, rows.y + high.x), inside - corner);
}

fn warpBefore(p: Place, layer: u32) -> vec4f {
  let upper = mix(before[p.at.x + layer], before[p.at.y + layer], p.share.x);
  return mix(upper, mix(before[p.at.z + layer], before[p.at.w + layer], p.share.x), p.share.y);
}

fn warpAfter(p: Place, layer: u32) -> vec4f {
  let upper = mix(after[p.at.x + layer], after[p.at.y + layer], p.share.x);
  return mix(upper, mix(after[p.at.z + layer], after[p.at.w + layer], p.share.x), p.share.y);
}

/** Four planes of the head from `plane` on, resized to the pictures' size, at a pixel. */
fn passed(plane: u32, pixel: vec2u) -> vec4f {
  let size = vec2u(params.width, params.height) / params.headScale;
  let position = max((vec2f(pixel) + 0.5) / f32(params.headScale) - 0.5, vec2f(0));
  let low = vec2u(position);
  let high = min(low + 1, size - 1);
  let share = position - vec2f(low);
  var values = vec4f(0);
  for (var i = 0u; i < 4; i++) {
    let upper = ((plane + i) * size.y + low.y) * size.x;
    let lower = ((plane + i) * size.y + high.y) * size.x;
    values[i] = mix(mix(head[upper + low.x], head[upper + high.x], share.x),
                    mix(head[lower + low.x], head[lower + high.x], share.x), share.y);
  }
  return values;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let scale = params.scale;
  let wide = params.width / scale;
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= wide * (params.height / scale)) { return; }
  let column = index % wide;
  let row = index / wide;
  // Scale 1 reads the pixel itself, others the pixels left and above of the middle and their neighbours.
  let step = select(1u, 0u, scale == 1);
  let pixels = 1 + 3 * step;
  let left = column * scale + scale / 2 - step;
  let top = row * scale + scale / 2 - step;
  var a: array<vec4f, LAYERS>;
  var b: array<vec4f, LAYERS>;
  var kept: array<vec4f, PASSED + 1>; // WGSL has no arrays of no elements: the last one is the flow
  var blend = 0.0;
  for (var i = 0u; i < pixels; i++) {
    let pixel = vec2u(left + (i & 1) * step, top + (i >> 1) * step);
    let at = pixel.y * params.width + pixel.x;
    if (FIRST) {
      for (var layer = 0u; layer < LAYERS; layer++) {
        a[layer] += before[LAYERS * at + layer];
        b[layer] += after[LAYERS * at + layer];
      }
    } else {
      let by = flow[at];
      let p = place(vec2f(pixel) + by.xy);
      let q = place(vec2f(pixel) + by.zw);
      for (var layer = 0u; layer < LAYERS; layer++) {
        a[layer] += warpBefore(p, layer);
        b[layer] += warpAfter(q, layer);
      }
      for (var four = 0u; four < PASSED; four++) { kept[four] += passed(5 + 4 * four, pixel); }
      kept[PASSED] += by;
      blend += mask[at];
    }
  }

  // Two channels are always left over for the next four: six of the pictures, then fours, then time and mask.
  let share = 1 / f32(pixels);
  let channels = select(2 * LAYERS + 1 + PASSED, 2 * LAYERS, FIRST);
  var at = ((row + 1) * (wide + 2) + column + 1) * channels;
  x[at] = vec4<T>(share * vec4f(a[0].rgb, b[0].r));
  var rest = b[0].gb;
  for (var four = 0u; four < 2 * (LAYERS - 1); four++) {
    let second = four >= LAYERS - 1;
    let layer = four - select(0, LAYERS - 1, second) + 1;
    let values = select(a[layer], b[layer], second);
    at++;
    x[at] = vec4<T>(share * vec4f(rest, values.xy));
    rest = values.zw;
  }
  x[at + 1] = vec4<T>(vec4f(share * rest, params.time, share * blend));
  if (!FIRST) {
    for (var four = 0u; four < PASSED; four++) { x[at + 2 + four] = vec4<T>(share * kept[four]); }
    x[at + 2 + PASSED] = vec4<T>(share * kept[PASSED] / f32(scale));
  }
}
