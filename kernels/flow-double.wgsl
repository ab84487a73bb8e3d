// flow-double: a flow at twice the size, its pixels half as large.
//   coarse [height / 2, width / 2], fine [height, width] of vec2f, in pixels of their own size
// Bilinear with half-pixel centres, clamped to the picture, times 2.
override WORKGROUP: u32;

struct Params {
  height: u32,  // of fine
  width: u32,
}

@group(0) @binding(0) var<storage, read> coarse: array<vec2f>;
@group(0) @binding(1) var<storage, read_write> fine: array<vec2f>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let at = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (at >= params.height * params.width) { return; }
  let wide = params.width / 2;
  let last = vec2i(i32(wide), i32(params.height / 2)) - 1;
  let pixel = vec2i(i32(at % params.width), i32(at / params.width));
  // Three quarters of the pixel that it lies in, a quarter of the neighbour that it lies closer to.
  let near = pixel / 2;
  let far = clamp(near + 2 * (pixel % 2) - 1, vec2i(0), last);
  let upper = 0.75 * coarse[u32(near.y) * wide + u32(near.x)] + 0.25 * coarse[u32(near.y) * wide + u32(far.x)];
  let lower = 0.75 * coarse[u32(far.y) * wide + u32(near.x)] + 0.25 * coarse[u32(far.y) * wide + u32(far.x)];
  fine[at] = 2 * (0.75 * upper + 0.25 * lower);
}
