// flow-features: what a block of the flow network reads, at 1 / scale of the pictures' size.
//   before, after [height, width] rgb in 0..1, flow [height, width] in pixels (x, y into before; x, y into after)
//   mask [height, width] of f32                 x [height / scale + 2, width / scale + 2, channels] of T
// FIRST: channels are before (3), after (3), time, 0. Else: before and after warped by the flow (3 each), time, mask,
// flow / scale (4). Pictures are resized without antialiasing, half-pixel centres: with an even scale a value is the mean of
// the 2 x 2 values in the middle of its square. A warp reads bilinearly, its coordinates clamped to the picture.
// x has a border of one pixel, which this kernel never writes. Prelude: alias T, const FIRST.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  scale: u32,
  time: f32,
}

@group(0) @binding(0) var<storage, read> before: array<vec4f>;
@group(0) @binding(1) var<storage, read> after: array<vec4f>;
@group(0) @binding(2) var<storage, read> flow: array<vec4f>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<vec4<T>>;
@group(0) @binding(5) var<uniform> params: Params;

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
  return Place(vec4u(rows.x + low.x, rows.x + high.x, rows.y + low.x, rows.y + high.x), inside - corner);
}

fn warpBefore(position: vec2f) -> vec3f {
  let p = place(position);
  let upper = mix(before[p.at.x].rgb, before[p.at.y].rgb, p.share.x);
  return mix(upper, mix(before[p.at.z].rgb, before[p.at.w].rgb, p.share.x), p.share.y);
}

fn warpAfter(position: vec2f) -> vec3f {
  let p = place(position);
  let upper = mix(after[p.at.x].rgb, after[p.at.y].rgb, p.share.x);
  return mix(upper, mix(after[p.at.z].rgb, after[p.at.w].rgb, p.share.x), p.share.y);
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
  let left = column * scale + scale / 2 - step;
  let top = row * scale + scale / 2 - step;
  var a = vec3f(0);
  var b = vec3f(0);
  var moved = vec4f(0);
  var blend = 0.0;
  for (var i = 0u; i < 4; i++) {
    let pixel = vec2u(left + (i & 1) * step, top + (i >> 1) * step);
    let at = pixel.y * params.width + pixel.x;
    if (FIRST) {
      a += before[at].rgb;
      b += after[at].rgb;
    } else {
      let by = flow[at];
      a += warpBefore(vec2f(pixel) + by.xy);
      b += warpAfter(vec2f(pixel) + by.zw);
      moved += by;
      blend += mask[at];
    }
  }
  let channels = select(3u, 2u, FIRST);
  let at = ((row + 1) * (wide + 2) + column + 1) * channels;
  x[at] = vec4<T>(0.25 * vec4f(a, b.r));
  x[at + 1] = vec4<T>(vec4f(0.25 * b.gb, params.time, 0.25 * blend));
  if (!FIRST) { x[at + 2] = vec4<T>(0.25 * moved / f32(scale)); }
}
