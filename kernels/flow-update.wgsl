// flow-update: adds what a block of the flow network found, resized to the pictures' size.
//   head [planes, height / scale, width / scale]: planes 0 to 3 are flow in pixels of that size, plane 4 is the mask
//   flow [height, width, 4] in pixels, mask [height, width], all of f32
// Bilinear, half-pixel centres, edges clamped; FIRST and REPLACE_MASK: flow and mask are set in place of being added to.
// Prelude: const FIRST, const REPLACE_MASK.
override WORKGROUP: u32;

struct Params {
  height: u32,
  width: u32,
  scale: u32,
}

@group(0) @binding(0) var<storage, read> head: array<f32>;
@group(0) @binding(1) var<storage, read_write> flow: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> mask: array<f32>;
@group(0) @binding(3) var<uniform> params: Params;

/** Two neighbours on an axis of `length` values and the share of the second, for position `i` of the finer axis. */
struct Between {
  low: u32,
  high: u32,
  share: f32,
}

fn between(i: u32, length: u32) -> Between {
  let position = max((f32(i) + 0.5) / f32(params.scale) - 0.5, 0.0);
  let low = u32(position);
  return Between(low, min(low + 1, length - 1), position - f32(low));
}

fn resized(plane: u32, rows: Between, columns: Between) -> f32 {
  let wide = params.width / params.scale;
  let begin = plane * (params.height / params.scale) * wide;
  let upper = begin + rows.low * wide;
  let lower = begin + rows.high * wide;
  return mix(mix(head[upper + columns.low], head[upper + columns.high], columns.share),
             mix(head[lower + columns.low], head[lower + columns.high], columns.share), rows.share);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) grid: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * grid.x + group.x) * WORKGROUP + lane;
  if (index >= params.height * params.width) { return; }
  let rows = between(index / params.width, params.height / params.scale);
  let columns = between(index % params.width, params.width / params.scale);
  let found = f32(params.scale) * vec4f(resized(0, rows, columns), resized(1, rows, columns),
                                        resized(2, rows, columns), resized(3, rows, columns));
  let weight = resized(4, rows, columns);
  if (FIRST) { flow[index] = found; } else { flow[index] += found; }
  if (REPLACE_MASK) { mask[index] = weight; } else { mask[index] += weight; }
}
