// pad-picture: one frame of a clip as a picture with channels last, extended to the right and below.
//   rgb [3, frames, height, width] of f32, clamped to -1..1
//   y [paddedHeight + 2 * BORDER, paddedWidth + 2 * BORDER, 4 * LAYERS] of T, in 0..1
// Beyond the frame y repeats the frame's edge, or holds zeros where REPLICATE is false. Of a pixel's channels the first four are
// set, the fourth to zero; the border stays as it is. Prelude: alias T, const REPLICATE, const BORDER, const LAYERS.
override WORKGROUP: u32;

struct Params {
  frames: u32,
  frame: u32,
  height: u32,
  width: u32,
  paddedHeight: u32,
  paddedWidth: u32,
}

@group(0) @binding(0) var<storage, read> rgb: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= params.paddedHeight * params.paddedWidth) { return; }
  let row = index / params.paddedWidth;
  let column = index % params.paddedWidth;
  let to = LAYERS * ((row + BORDER) * (params.paddedWidth + 2 * BORDER) + column + BORDER);
  if (!REPLICATE && (row >= params.height || column >= params.width)) {
    y[to] = vec4<T>(0);
    return;
  }
  let plane = params.height * params.width;
  let at = params.frame * plane + min(row, params.height - 1) * params.width + min(column, params.width - 1);
  let color = vec3f(rgb[at], rgb[at + params.frames * plane], rgb[at + 2 * params.frames * plane]);
  y[to] = vec4<T>(vec4f(clamp(color, vec3f(-1), vec3f(1)) * 0.5 + 0.5, 0));
}
