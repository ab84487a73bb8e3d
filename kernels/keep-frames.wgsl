// keep-frames: floats as half floats, two in a word as pack2x16float makes them, which needs no shader-f16.
//   x [at least first + quads, 4] of f32    y [at least place + quads, 4] of f16
override WORKGROUP: u32;

struct Params {
  quads: u32,
  first: u32,
  place: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec2u>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= params.quads) { return; }
  // 65504: the largest half float. WGSL leaves open what a larger one becomes.
  let value = clamp(x[params.first + index], vec4f(-65504), vec4f(65504));
  y[params.place + index] = vec2u(pack2x16float(value.xy), pack2x16float(value.zw));
}
