// channel-norm: y = x / max(|x|, 1e-12) * sqrt(C) * gamma over the C channels of a position, then SiLU if `silu` is 1.
//   x [positions, C] of T    gamma [C] of f32    y [positions, C] of T
// C = 4 * `channels`. One invocation a position: a barrier costs SwiftShader more than coalesced reads save elsewhere.
// Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  positions: u32,
  channels: u32, // C / 4
  silu: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> gamma: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let position = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (position >= params.positions) { return; }
  let channels = params.channels;
  let at = position * channels;
  var squares = vec4f();
  for (var c = 0u; c < channels; c++) {
    let value = vec4f(x[at + c]);
    squares += value * value;
  }
  // 1e-12: torch.nn.functional.normalize, as Wan's RMS_norm calls it.
  let scale = sqrt(f32(4 * channels)) / max(sqrt(dot(squares, vec4f(1))), 1e-12);
  for (var c = 0u; c < channels; c++) {
    var value = vec4f(x[at + c]) * scale * gamma[c];
    if (params.silu == 1) { value /= 1 + exp(-value); }
    y[at + c] = vec4<T>(value);
  }
}
