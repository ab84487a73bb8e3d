// i420: a frame's RGB to the bytes of I420, BT.709 limited range, four to a u32 with the first in the low byte.
//   rgb [3, frames, height, width] f32, clamped to -1..1    out: Y [height, width], U and V [height / 2, width / 2]
// One invocation makes 8 x 2 pixels: four words of Y, one of U, one of V.
override WORKGROUP: u32;
struct Params { frames: u32, frame: u32, height: u32, width: u32 }
@group(0) @binding(0) var<storage, read> rgb: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;

/** R, G and B of four pixels, 0..1. */
struct Quad { r: vec4f, g: vec4f, b: vec4f }

fn load(row: u32, quad: u32) -> Quad {
  let plane = params.frames * params.height * (params.width / 4);
  let i = (params.frame * params.height + row) * (params.width / 4) + quad;
  return Quad(unit(rgb[i]), unit(rgb[plane + i]), unit(rgb[2 * plane + i]));
}

fn unit(value: vec4f) -> vec4f { return clamp(value, vec4f(-1), vec4f(1)) * 0.5 + 0.5; }

/** Y' of ITU-R BT.709-6, item 3.2. */
fn luma(q: Quad) -> vec4f { return 0.2126 * q.r + 0.7152 * q.g + 0.0722 * q.b; }

/** Four bytes, rounded to nearest. */
fn pack(value: vec4f) -> u32 { return dot(vec4u(value + 0.5), vec4u(1, 0x100, 0x10000, 0x1000000)); }

fn packLuma(q: Quad) -> u32 { return pack(clamp(16 + 219 * luma(q), vec4f(16), vec4f(235))); }

/** A channel's means over 2 x 2 pixels: `left` holds four columns, upper row first, `right` the next four. */
fn mean(left: vec4f, leftLower: vec4f, right: vec4f, rightLower: vec4f) -> vec4f {
  let a = left + leftLower;
  let b = right + rightLower;
  return 0.25 * vec4f(a.x + a.y, a.z + a.w, b.x + b.y, b.z + b.w);
}

/** A chroma plane's bytes. The range is that of channel - Y': twice one minus the channel's share of Y'. */
fn packChroma(channel: vec4f, y: vec4f, range: f32) -> u32 {
  return pack(clamp(128 + 224 * (channel - y) / range, vec4f(16), vec4f(240)));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * grid.x + group.x) * WORKGROUP + lane;
  let columns = params.width / 8;
  if (i >= columns * (params.height / 2)) { return; }
  let row = 2 * (i / columns);
  let quad = 2 * (i % columns);
  let left = load(row, quad);
  let right = load(row, quad + 1);
  let leftLower = load(row + 1, quad);
  let rightLower = load(row + 1, quad + 1);
  let upper = row * (params.width / 4) + quad;
  let lower = upper + params.width / 4;
  out[upper] = packLuma(left);
  out[upper + 1] = packLuma(right);
  out[lower] = packLuma(leftLower);
  out[lower + 1] = packLuma(rightLower);

  let average = Quad(
    mean(left.r, leftLower.r, right.r, rightLower.r),
    mean(left.g, leftLower.g, right.g, rightLower.g),
    mean(left.b, leftLower.b, right.b, rightLower.b),
  );
  let y = luma(average);
  let lumaWords = params.width * params.height / 4;
  out[lumaWords + i] = packChroma(average.b, y, 1.8556);
  out[lumaWords + lumaWords / 4 + i] = packChroma(average.r, y, 1.5748);
}
