// warp-slice: a picture moved by a flow, into some of the channels of y.
//   x [height + 2, width + 2, channels]    y [height + 2, width + 2, yChannels] of T
//   flow [height, width] of vec2f, in pixels, x then y
// y reads x bilinearly at its own place plus scale * flow, coordinates clamped to the picture. Where MOVES is false it is x itself.
// Channels are last and come in fours. Pictures have a border of one pixel, which is neither read nor written.
// Prelude: alias T, const MOVES.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  channels: u32,   // of x, / 4
  yChannels: u32,  // / 4
  yOffset: u32,    // / 4
  scale: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>;
@group(0) @binding(1) var<storage, read> flow: array<vec2f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<T>>;
@group(0) @binding(3) var<uniform> params: Params;

fn load(pixel: vec2u, channel: u32) -> vec4f {
  return vec4f(x[((pixel.y + 1) * (params.width + 2) + pixel.x + 1) * params.channels + channel]);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let at = index / params.channels;
  if (at >= params.height * params.width) { return; }
  let channel = index % params.channels;
  let pixel = vec2u(at % params.width, at / params.width);
  var value = vec4f(0);
  if (MOVES) {
    let last = vec2f(f32(params.width - 1), f32(params.height - 1));
    let place = clamp(vec2f(pixel) + params.scale * flow[at], vec2f(0), last);
    let corner = floor(place);
    let low = vec2u(corner);
    let high = vec2u(min(corner + 1, last));
    let share = place - corner;
    let upper = mix(load(low, channel), load(vec2u(high.x, low.y), channel), share.x);
    let lower = mix(load(vec2u(low.x, high.y), channel), load(high, channel), share.x);
    value = mix(upper, lower, share.y);
  } else {
    value = load(pixel, channel);
  }
  let out = (pixel.y + 1) * (params.width + 2) + pixel.x + 1;
  y[out * params.yChannels + params.yOffset + channel] = vec4<T>(value);
}
