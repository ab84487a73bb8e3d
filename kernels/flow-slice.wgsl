// flow-slice: two flows, scaled, as four of the channels of y.
//   backward, forward [height, width] of vec2f    y [height + 2, width + 2, yChannels] of T
// y has a border of one pixel, which this kernel never writes. Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  yChannels: u32,  // / 4
  yOffset: u32,    // / 4
  time: f32,       // factor of backward; forward has 1 - time
}

@group(0) @binding(0) var<storage, read> backward: array<vec2f>;
@group(0) @binding(1) var<storage, read> forward: array<vec2f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let at = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (at >= params.height * params.width) { return; }
  let out = (at / params.width + 1) * (params.width + 2) + at % params.width + 1;
  let value = vec4f(params.time * backward[at], (1 - params.time) * forward[at]);
  y[out * params.yChannels + params.yOffset] = vec4<T>(value);
}
