// tile-picture: a rectangle of one frame of a clip as a picture with channels last; it may reach beyond the frame.
//   rgb [3, frames, frameHeight, frameWidth] of f32, clamped to -1..1    y [height + 2, width + 2, 4] of T in 0..1
// Beyond the frame y holds zeros. y has a border of one pixel, which this kernel never writes. Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  frames: u32,
  frame: u32,
  frameHeight: u32,
  frameWidth: u32,
  top: u32,    // row of the frame at which y begins, in the bits of an i32
  left: u32,
  height: u32,
  width: u32,
}

@group(0) @binding(0) var<storage, read> rgb: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= params.height * params.width) { return; }
  let row = index / params.width;
  let column = index % params.width;
  let source = vec2i(i32(column) + bitcast<i32>(params.left), i32(row) + bitcast<i32>(params.top));
  var color = vec3f(0);
  if (all(source >= vec2i(0)) && source.x < i32(params.frameWidth) && source.y < i32(params.frameHeight)) {
    let plane = params.frameHeight * params.frameWidth;
    let at = params.frame * plane + u32(source.y) * params.frameWidth + u32(source.x);
    let value = vec3f(rgb[at], rgb[at + params.frames * plane], rgb[at + 2 * params.frames * plane]);
    color = clamp(value, vec3f(-1), vec3f(1)) * 0.5 + 0.5;
  }
  y[(row + 1) * (params.width + 2) + column + 1] = vec4<T>(vec4f(color, 0));
}
