// pyramid-pool: some channels of a picture at half its size, each value the mean of 2 x 2 pixels.
//   x [2 * height + 2, 2 * width + 2, xChannels]    y [height + 2, width + 2, channels] of T
// Channels are last and come in fours. Pictures have a border of one pixel, which is neither read nor written.
// Prelude: alias T.
override WORKGROUP: u32;

struct Params {
  height: u32,     // of y
  width: u32,
  channels: u32,   // of y, / 4
  xChannels: u32,  // / 4
  xOffset: u32,    // / 4
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(2) var<uniform> params: Params;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let pixel = index / params.channels;
  if (pixel >= params.height * params.width) { return; }
  let channel = index % params.channels;
  let row = pixel / params.width;
  let column = pixel % params.width;
  let xRow = (2 * params.width + 2) * params.xChannels;
  let at = (2 * row + 1) * xRow + (2 * column + 1) * params.xChannels + params.xOffset + channel;
  let upper = vec4f(x[at]) + vec4f(x[at + params.xChannels]);
  let lower = vec4f(x[at + xRow]) + vec4f(x[at + xRow + params.xChannels]);
  y[((row + 1) * (params.width + 2) + column + 1) * params.channels + channel] = vec4<T>(0.25 * (upper + lower));
}
