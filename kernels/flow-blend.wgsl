// flow-blend: the frame between two, from both warped by the flow.
//   before, after [paddedHeight, paddedWidth, 4 * LAYERS] of which the first three are rgb in 0..1, flow of the same size in pixels (x, y into before; x, y into after)
//   mask of the same size, before its sigmoid             rgb [3, height, width] in -1..1, all of f32
// rgb = 2 * (before * sigmoid(mask) + after * (1 - sigmoid(mask))) - 1, without the padding on the right and below. A warp
// reads bilinearly, its coordinates clamped to the padded picture. Prelude: const LAYERS.
override WORKGROUP: u32;

struct Params {
  paddedHeight: u32,
  paddedWidth: u32,
  height: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> before: array<vec4f>;
@group(0) @binding(1) var<storage, read> after: array<vec4f>;
@group(0) @binding(2) var<storage, read> flow: array<vec4f>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read_write> rgb: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

/** The four pixels that a position lies between, and its place among them. */
struct Place {
  at: vec4u,
  share: vec2f,
}

fn place(position: vec2f) -> Place {
  let last = vec2f(f32(params.paddedWidth - 1), f32(params.paddedHeight - 1));
  let inside = clamp(position, vec2f(0), last);
  let corner = floor(inside);
  let low = vec2u(corner);
  let high = vec2u(min(corner + 1, last));
  let rows = vec2u(low.y, high.y) * params.paddedWidth;
  return Place(LAYERS * vec4u(rows.x + low.x, rows.x + high.x, rows.y + low.x, rows.y + high.x), inside - corner);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let plane = params.height * params.width;
  if (index >= plane) { return; }
  let pixel = vec2u(index % params.width, index / params.width);
  let at = pixel.y * params.paddedWidth + pixel.x;
  let by = flow[at];
  let p = place(vec2f(pixel) + by.xy);
  let q = place(vec2f(pixel) + by.zw);
  let first = mix(mix(before[p.at.x].rgb, before[p.at.y].rgb, p.share.x),
                  mix(before[p.at.z].rgb, before[p.at.w].rgb, p.share.x), p.share.y);
  let second = mix(mix(after[q.at.x].rgb, after[q.at.y].rgb, q.share.x),
                   mix(after[q.at.z].rgb, after[q.at.w].rgb, q.share.x), q.share.y);
  let color = 2 * mix(second, first, 1 / (1 + exp(-mask[at]))) - 1;
  rgb[index] = color.r;
  rgb[index + plane] = color.g;
  rgb[index + 2 * plane] = color.b;
}
