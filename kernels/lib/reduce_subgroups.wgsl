// Reductions over the workgroup's threads, as reduce_tree.wgsl has them: within each subgroup by its own instructions, then
// among subgroups through shared memory, with two barriers in all. All threads call it. Neither a subgroup's size nor its
// threads are known, and its index in the workgroup not in every browser. So every thread writes to its own element, and each
// subgroup reads all elements, as many at a time as it has threads. A sum goes to another rank's element in each subgroup: each
// thread then adds few of them, where rank 0 would add all, one after another, with a rounding each.
// @use candidate
enable subgroups;

var<workgroup> partial: array<f32, WG>;
var<workgroup> partial_pairs: array<vec2<f32>, WG>;
var<workgroup> candidates: array<Candidate, WG>;

fn sum_over_threads(lane: u32, value: f32) -> f32 {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u); // less than subgroup_size in one that is not full
  let sum = subgroupAdd(value);
  partial[lane] = select(0.0, sum, rank == subgroupBroadcastFirst(lane / size) % size);
  workgroupBarrier();
  var rest = 0.0;
  for (var i = rank; i < WG; i += size) {
    rest += partial[i];
  }
  workgroupBarrier(); // before the next use overwrites it
  return subgroupAdd(rest);
}

fn sums_over_threads(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u);
  let sum = subgroupAdd(pair);
  partial_pairs[lane] = select(vec2<f32>(), sum, rank == subgroupBroadcastFirst(lane / size) % size);
  workgroupBarrier();
  var rest = vec2<f32>();
  for (var i = rank; i < WG; i += size) {
    rest += partial_pairs[i];
  }
  workgroupBarrier();
  return subgroupAdd(rest);
}

fn max_over_threads(lane: u32, value: f32) -> f32 {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u);
  var largest = subgroupMax(value);
  partial[lane] = largest;
  workgroupBarrier();
  for (var i = rank; i < WG; i += size) {
    largest = max(largest, partial[i]);
  }
  workgroupBarrier();
  return subgroupMax(largest);
}

fn best_over_threads(lane: u32, candidate: Candidate) -> Candidate {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u);
  var best = best_of_subgroup(candidate);
  candidates[lane] = best;
  workgroupBarrier();
  for (var i = rank; i < WG; i += size) {
    if (is_before(candidates[i], best)) {
      best = candidates[i];
    }
  }
  workgroupBarrier();
  return best_of_subgroup(best);
}

fn best_of_subgroup(candidate: Candidate) -> Candidate {
  let key = subgroupMax(candidate.key);
  return Candidate(key, subgroupMin(select(0xffffffffu, candidate.place, candidate.key == key)));
}
