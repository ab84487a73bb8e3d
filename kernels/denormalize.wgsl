// denormalize: a latent frame as the decoder takes it, z * scale + mean, channels last with a border of zeros.
//   z [C, height, width] of f32    scale, mean [C] of f32    y [height + 2, width + 2, C] of T
// C = 4 * `channels`. The border is never written.
// Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  channels: u32, // C / 4
}

@group(0) @binding(0) var<storage, read> z: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<vec4f>;
@group(0) @binding(2) var<storage, read> mean: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let area = params.height * params.width;
  if (index >= area * params.channels) { return; }
  let position = index / params.channels;
  let c = index % params.channels;
  let at = 4 * c * area + position;
  let value = vec4f(z[at], z[at + area], z[at + 2 * area], z[at + 3 * area]) * scale[c] + mean[c];
  let row = position / params.width + 1;
  let column = position % params.width + 1;
  y[(row * (params.width + 2) + column) * params.channels + c] = vec4<T>(value);
}
