// flow-residual: the last layer of a flow predictor, a 1 x 1 convolution to two channels, added to the flow so far.
//   x [height + 2, width + 2, into] of T    weight [into, 2] as pairs, bias one pair    flow [height, width] of vec2f
// Where FIRST, there is no flow so far. Channels are last and come in fours; x has a border of one pixel, which is not read.
// The flow is f32 throughout: a half float has steps of a pixel at 1280.
// Prelude: alias T, const FIRST.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  into: u32,  // channels / 4
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> weight: array<vec2f>;
@group(0) @binding(2) var<storage, read> bias: array<vec2f>;
@group(0) @binding(3) var<storage, read_write> flow: array<vec2f>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let at = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (at >= params.height * params.width) { return; }
  let begin = ((at / params.width + 1) * (params.width + 2) + at % params.width + 1) * params.into;
  var sum = bias[0];
  for (var i = 0u; i < params.into; i++) {
    let value = vec4f(x[begin + i]);
    sum += value.x * weight[4 * i] + value.y * weight[4 * i + 1];
    sum += value.z * weight[4 * i + 2] + value.w * weight[4 * i + 3];
  }
  if (FIRST) {
    flow[at] = sum;
  } else {
    flow[at] += sum;
  }
}
