#include "hesspect/curvature/hessian.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "allocation_meter.h"
#include "grouped_rows.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/core/timer.h"
#include "hesspect/curvature/measure.h"
#include "hesspect/curvature/parts.h"
#include "hesspect/curvature/row_check.h"
#include "hesspect/tangent/segments.h"
#include "local_loss.h"
#include "operator_parts.h"
#include "output_loss.h"
#include "product_trials.h"
#include "sharded_products.h"
#include "warm_products.h"

namespace hesspect {

ProductChoice choice_of(const HessianOptions& options) {
  return {.tangent = options.product != ProductMode::kAutograd,
          .segments = options.product == ProductMode::kSegments,
          .curvature = options.curvature,
          .fisher_unit = options.fisher_unit,
          .precision = options.precision,
          .cuda_graphs = options.cuda_graphs};
}

struct HessianOperator::Impl {
  Communicator& comm;
  HessianOptions options;
  std::unique_ptr<LocalLoss> owned;
  LocalLoss& local;
  Shard shard;
  std::vector<MicroBatch> batches;
  std::vector<std::unique_ptr<BatchProducts>> batch_products;  // of each
  std::vector<std::int64_t> group_of;                          // of each, where there are groups of rows
  RowGrouping grouping;
  RowGroups groups;
  std::unique_ptr<ShardedProducts> sharded;  // where parameters are
  std::size_t kept = 0;                      // of them, the first ones
  /// What keeping them has taken so far; over: no more are.
  struct Keeping {
    std::int64_t budget = 0, used = 0, largest = 0;
    bool over = true;
  } keeping;
  // Room for `capacity` vectors: whole ones and local sums [capacity, stride], and the shards that are sent
  // [capacity, chunk] (not for one vector).
  std::int64_t capacity = 0;
  at::Tensor inputs, sums, packed;
  double known_product_s = -1;  // that the product of what `inputs` holds took, which is in `sums`; negative: it isn't
  at::Tensor gradient;          // [chunk]
  double loss = 0;
  double count = 0;
  double divisor = 1;  // what sums over all rows are divided by
  PrecisionEffect effect;
  HessianStats stats;

  Impl(Program& program, DataShard data, Communicator& the_comm, const HessianOptions& the_options)
      : comm(the_comm),
        options(the_options),
        owned(the_options.warm ? std::move(the_options.warm->local)
                               : std::make_unique<LocalLoss>(program, std::move(data), the_options.loss,
                                                             the_options.output_index, the_options.units)),
        local(*owned),
        shard(Shard::of(program.layout().size(), the_comm.size(), the_comm.rank(), program.layout().numbers())) {
    local.choose(choice_of(options));
    if (options.warm || is_sharded()) return;
    at::AutoGradMode grad(true);
    local.check(options.check_double_backward);
  }

  bool is_sharded() const { return local.program().is_left_in_file(); }

  bool alone() const { return comm.size() == 1; }
  at::TensorOptions vector_options() const { return sharded ? sharded->vector_options() : local.tensor_options(); }
  at::Device device() const { return local.program().options().device; }
  std::vector<at::Tensor> views(const at::Tensor& full) const { return local.program().layout().views(full); }

  std::int64_t stride() const { return vector_stride(shard.padded()); }
  at::Tensor input(std::size_t i) const { return inputs[static_cast<std::int64_t>(i)].narrow(0, 0, shard.padded()); }
  at::Tensor sum(std::size_t i) const { return sums[static_cast<std::int64_t>(i)].narrow(0, 0, shard.padded()); }

  void make_room(std::int64_t vectors) {
    inputs = sums = packed = at::Tensor();
    inputs = at::zeros({vectors, stride()}, local.tensor_options());
    sums = at::zeros({vectors, stride()}, local.tensor_options());
    if (!alone() && vectors > 1) packed = at::zeros({vectors, shard.chunk}, local.tensor_options());
  }

  /// Does the work; where memory runs out, recorded launches make room, then kept micro-batches, the last one first,
  /// and it is called again.
  template <class Work>
  void with_room(Work&& work) {
    while (true) {
      try {
        return work();
      } catch (const std::exception& e) {
        if (!is_out_of_memory(e)) throw;
        if (replaying() > 0) {
          for (const std::unique_ptr<BatchProducts>& batch : batch_products) batch->drop_recorded(/*for_good=*/true);
          continue;
        }
        if (kept == 0) throw;
        drop_last();
      }
    }
  }

  /// How many micro-batches' products are replayed.
  std::int64_t replaying() const {
    return std::ranges::count_if(batch_products, [](const auto& batch) { return batch->replays(); });
  }

  void drop_last() {
    batch_products[--kept]->drop();
    stats.kept_graphs = static_cast<std::int64_t>(kept);
  }

  /// Collective: `capacity` is the same on all ranks, also where one of them finds no room.
  void make_room_beside_graphs(std::int64_t vectors) {
    capacity = 0;
    for (const std::unique_ptr<BatchProducts>& batch : batch_products) batch->drop_recorded(/*for_good=*/false);
    agree(comm, [&] { with_room([&] { make_room(vectors); }); });
    capacity = vectors;
  }

  // --- products -----------------------------------------------------------------------------------------------------

  /// inputs[i] := the whole vector of which the ranks hold the shards x[i]. Collective. Uses the room of the sums.
  void gather(std::span<const at::Tensor> x) {
    known_product_s = -1;
    if (alone()) {
      for (std::size_t i = 0; i < x.size(); ++i) input(i).copy_(x[i]);
    } else if (x.size() == 1) {
      at::Tensor full = input(0);
      comm.all_gather(x[0], full);
    } else {
      const auto k = static_cast<std::int64_t>(x.size());
      const at::Tensor shards = packed.narrow(0, 0, k);
      for (std::int64_t i = 0; i < k; ++i) shards[i].copy_(x[static_cast<std::size_t>(i)]);
      at::Tensor by_rank = sums.view({-1}).narrow(0, 0, k * shard.padded());
      comm.all_gather(shards.view({-1}), by_rank);
      inputs.narrow(0, 0, k)
          .narrow(1, 0, shard.padded())
          .view({k, comm.size(), shard.chunk})
          .copy_(by_rank.view({comm.size(), k, shard.chunk}).transpose(0, 1));
    }
  }

  /// sums[i] := this rank's part of H inputs[i], not yet divided, for the first k. Where memory runs out half way, all
  /// is made again: sums may have been added to.
  /// @param dots  is told where a group of rows ends; or null
  void local_products(std::int64_t k, GroupDots* dots) {
    const at::Tensor v = inputs.narrow(0, 0, k), products = sums.narrow(0, 0, k);
    with_room([&] {
      products.zero_();
      if (dots != nullptr) dots->reset();
      for (std::size_t i = 0; i < batch_products.size(); ++i) {
        batch_products[i]->add(v, products);
        const bool is_end = i + 1 == batch_products.size() || (dots != nullptr && group_of[i + 1] != group_of[i]);
        if (dots != nullptr && is_end) dots->end(group_of[i], v, products);
      }
    });
  }

  /// y := this rank's shards of the sums over ranks, divided. Collective. Uses the room of the inputs.
  void scatter(std::span<at::Tensor> y) {
    if (alone()) {
      for (std::size_t i = 0; i < y.size(); ++i) y[i].copy_(sum(i));
    } else if (y.size() == 1) {
      at::Tensor full = sum(0);
      comm.reduce_scatter_sum(full, y[0]);
    } else {
      const auto k = static_cast<std::int64_t>(y.size());
      at::Tensor by_rank = inputs.view({-1}).narrow(0, 0, k * shard.padded());
      by_rank.view({comm.size(), k, shard.chunk})
          .copy_(sums.narrow(0, 0, k).narrow(1, 0, shard.padded()).view({k, comm.size(), shard.chunk}).transpose(0, 1));
      at::Tensor shards = packed.narrow(0, 0, k);
      at::Tensor flat = shards.view({-1});
      comm.reduce_scatter_sum(by_rank, flat);
      for (std::int64_t i = 0; i < k; ++i) y[static_cast<std::size_t>(i)].copy_(shards[i]);
    }
    for (at::Tensor& product : y) product.div_(divisor);
  }

  /// Local products, and which of their seconds went into which sweep.
  template <class Work>
  void timed(Work&& products) {
    Phases* phases = options.phases;
    if (phases == nullptr || !local.choice().tangent) return products();
    const SweepSeconds before = local.tangent_program().sweep_seconds();
    products();
    const SweepSeconds after = local.tangent_program().sweep_seconds();
    phases->move(Phase::kProducts, Phase::kValues, after.value_s - before.value_s);
    phases->move(Phase::kProducts, Phase::kTangents, after.tangent_s - before.tangent_s);
    phases->move(Phase::kProducts, Phase::kAdjoints, after.adjoint_s - before.adjoint_s);
    phases->move(Phase::kProducts, Phase::kAdjointTangents, after.adjoint_tangent_s - before.adjoint_tangent_s);
    phases->add_matrix_products(after.matrix_products_s - before.matrix_products_s);
  }

  void apply_sharded(std::span<const at::Tensor> x, std::span<at::Tensor> y, GroupsOfProduct* in_groups = nullptr) {
    const PhaseTimer phase(options.phases, Phase::kProducts, x.size() == 1 ? "product" : "block of products");
    const Timer total;
    const ShardedTraffic before = sharded->traffic();
    timed([&] { sharded->products(x, y, {}, in_groups); });
    for (at::Tensor& product : y) product.div_(divisor);
    if (!y.empty()) finish_device_work(y.back());
    const ShardedTraffic after = sharded->traffic();
    stats.products += std::ssize(x);
    stats.product_s += total.elapsed_s();
    stats.communication_s += after.seconds - before.seconds;
    if (alone()) return;
    stats.collectives += after.messages - before.messages + 1;  // and `agree`
    stats.message_bytes += after.bytes - before.bytes;
  }

  void apply(std::span<const at::Tensor> x, std::span<at::Tensor> y, GroupDots* dots = nullptr) {
    if (sharded) return apply_sharded(x, y);
    const PhaseTimer phase(options.phases, Phase::kProducts, x.size() == 1 ? "product" : "block of products");
    const Timer total;
    const auto k = static_cast<std::int64_t>(x.size());
    const double known_s = std::exchange(known_product_s, -1);
    const bool is_known = known_s >= 0 && k == 1 && at::equal(x[0], input(0));
    if (k > capacity) make_room_beside_graphs(k);
    double communication_s = 0;
    if (!is_known) {
      const Timer gathering;
      gather(x);
      communication_s += gathering.elapsed_s();
      agree(comm, [&] { timed([&] { local_products(k, dots); }); });
    }
    const Timer scattering;
    scatter(y);
    communication_s += scattering.elapsed_s();
    if (k > 0) finish_device_work(y.back());
    stats.cuda_graphs = replaying();
    stats.products += k;
    stats.product_s += total.elapsed_s() + (is_known ? known_s : 0);
    stats.communication_s += communication_s;
    if (alone()) return;
    stats.collectives += 3;
    stats.message_bytes += k * 2 * (comm.size() - 1) * shard.chunk * static_cast<std::int64_t>(sums.element_size());
  }

  /// Each other whole, as far as it is not already.
  std::vector<at::Tensor> whole_vectors(std::span<const at::Tensor> shards) {
    std::vector<at::Tensor> whole(shards.begin(), shards.end());
    if (alone()) return whole;
    for (at::Tensor& vector : whole) {
      at::Tensor full = agreed(comm, [&] { return at::zeros({shard.padded()}, local.tensor_options()); });
      comm.all_gather(vector, full);
      vector = full;
    }
    return whole;
  }

  std::vector<double> apply_in_groups(std::span<const at::Tensor> x, std::span<at::Tensor> y,
                                      std::span<const at::Tensor> others, const std::vector<std::int64_t>& segments) {
    if (groups.empty()) {
      apply(x, y);
      return {};
    }
    std::vector<double> all;
    if (sharded) {
      GroupsOfProduct in_groups{groups.count(), group_of, others, segments};
      apply_sharded(x, y, &in_groups);
      all = comm.sum(std::move(in_groups.sums));
    } else {
      GroupDots dots(static_cast<std::int64_t>(x.size()), groups.count(), whole_vectors(others), segments);
      apply(x, y, &dots);
      all = comm.sum(dots.sums());
    }
    for (double& sum : all) sum /= divisor;
    return all;
  }

  // --- parts --------------------------------------------------------------------------------------------------------

  /// The part's tensors, and what of `inputs` and `sums` a product with it touches: all of them.
  struct PartTensors {
    std::vector<bool> chosen;
    std::vector<IndexRange> ranges;
  };
  PartTensors tensors_of(const Part& part) const {
    const ParameterLayout& layout = local.program().layout();
    PartTensors tensors{tensors_in(layout, part.ranges), {}};
    for (std::size_t i = 0; i < tensors.chosen.size(); ++i) {
      const ParameterEntry& entry = layout.entries()[i];
      if (tensors.chosen[i]) tensors.ranges.push_back({entry.offset, entry.offset + entry.numel});
    }
    return tensors;
  }

  /// Calls use(entries of a whole vector, entries of the part's).
  template <class Use>
  static void for_each_range(const Part& part, const at::Tensor& whole, const at::Tensor& of_part, Use&& use) {
    std::int64_t at = 0;
    for (const IndexRange& range : part.ranges) {
      use(whole.narrow(0, range.begin, range.size()), of_part.narrow(0, at, range.size()));
      at += range.size();
    }
  }

  static VectorCut::Stretches stretches(const Part& part) {
    VectorCut::Stretches all;
    for (const IndexRange& range : part.ranges) all.emplace_back(range.begin, range.end);
    return all;
  }

  Shard shard_of(const Part& part) const {
    if (!sharded) return Shard::of(part.size(), comm.size(), comm.rank(), part.numbers);
    return Shard::of(std::make_shared<VectorCut>(shard.cut->of_part(stretches(part))), comm.rank(), part.numbers);
  }

  /// Each rank has of the whole what it has of the part: no entry is sent for that.
  void apply_part_sharded(const Part& part, std::span<const at::Tensor> x, std::span<at::Tensor> y) {
    const VectorCut::Stretches ranges = stretches(part);
    std::vector<at::Tensor> whole_x, whole_y;
    agree(comm, [&] {
      for (std::size_t k = 0; k < x.size(); ++k) {
        whole_x.push_back(at::zeros({shard.chunk}, vector_options()));
        whole_y.push_back(at::empty_like(whole_x.back()));
      }
    });
    const auto for_each_piece = [&](auto&& use) {
      std::int64_t at = 0;  // in the part's local vector
      shard.cut->for_each_in_part(comm.rank(), ranges, [&](std::int64_t position, std::int64_t, std::int64_t size) {
        use(position, at, size);
        at += size;
      });
    };
    for_each_piece([&](std::int64_t position, std::int64_t at, std::int64_t size) {
      for (std::size_t k = 0; k < x.size(); ++k) whole_x[k].narrow(0, position, size).copy_(x[k].narrow(0, at, size));
    });
    timed([&] { sharded->products(whole_x, whole_y, tensors_in(local.program().layout(), part.ranges)); });
    for (at::Tensor& one : y) one.zero_();
    for_each_piece([&](std::int64_t position, std::int64_t at, std::int64_t size) {
      for (std::size_t k = 0; k < y.size(); ++k) y[k].narrow(0, at, size).copy_(whole_y[k].narrow(0, position, size));
    });
    for (at::Tensor& one : y) one.div_(divisor);
    if (!y.empty()) finish_device_work(y.back());
  }

  void apply_part(const Part& part, std::span<const at::Tensor> x, std::span<at::Tensor> y) {
    const PhaseTimer phase(options.phases, Phase::kProducts, "product of a part");
    if (sharded) return apply_part_sharded(part, x, y);
    known_product_s = -1;
    const auto k = static_cast<std::int64_t>(x.size());
    const Shard cut = Shard::of(part.size(), comm.size(), comm.rank());
    const PartTensors tensors = tensors_of(part);
    if (k > capacity) make_room_beside_graphs(k);
    at::Tensor padded = agreed(comm, [&] { return at::zeros({cut.padded()}, local.tensor_options()); });
    for (std::int64_t i = 0; i < k; ++i) {
      const at::Tensor& shard_of_x = x[static_cast<std::size_t>(i)];
      if (!alone()) comm.all_gather(shard_of_x, padded);
      for (const IndexRange& range : tensors.ranges) inputs[i].narrow(0, range.begin, range.size()).zero_();
      for_each_range(part, inputs[i], alone() ? shard_of_x : padded,
                     [](const at::Tensor& whole, const at::Tensor& of_part) { whole.copy_(of_part); });
    }
    agree(comm, [&] {
      const at::Tensor v = inputs.narrow(0, 0, k), products = sums.narrow(0, 0, k);
      with_room([&] {
        for (const IndexRange& range : tensors.ranges) products.narrow(1, range.begin, range.size()).zero_();
        timed([&] {
          for (const std::unique_ptr<BatchProducts>& batch : batch_products)
            batch->add_part(v, products, tensors.chosen);
        });
      });
    });
    padded.zero_();
    for (std::int64_t i = 0; i < k; ++i) {
      at::Tensor& shard_of_y = y[static_cast<std::size_t>(i)];
      for_each_range(part, sums[i], alone() ? shard_of_y : padded,
                     [](const at::Tensor& whole, const at::Tensor& of_part) { of_part.copy_(whole); });
      if (!alone()) comm.reduce_scatter_sum(padded, shard_of_y);
      shard_of_y.div_(divisor);
    }
    if (k > 0) finish_device_work(y.back());
  }

  // --- precision ----------------------------------------------------------------------------------------------------

  /// Products from here on; where micro-batches are kept, the caller makes them again.
  void choose_precision(MatrixPrecision precision) {
    known_product_s = -1;
    ProductChoice choice = local.choice();
    choice.precision = precision;
    local.choose(choice);
  }

  void set_precision(MatrixPrecision precision) {
    if (precision == local.choice().precision) return;
    const std::size_t were_kept = kept;
    while (kept > 0) drop_last();
    choose_precision(precision);
    try {
      for (; kept < were_kept; ++kept) batch_products[kept]->keep();
    } catch (const std::exception& e) {
      if (!is_out_of_memory(e)) throw;
      batch_products[kept]->drop();
    }
    stats.kept_graphs = static_cast<std::int64_t>(kept);
  }

  /// H x, which counts as none of the run's products. Collective.
  at::Tensor uncounted_product(const at::Tensor& x) {
    const HessianStats before = stats;
    at::Tensor y = agreed(comm, [&] { return at::zeros({shard.chunk}, local.tensor_options()); });
    apply(std::span<const at::Tensor>(&x, 1), std::span<at::Tensor>(&y, 1));
    const std::int64_t kept_now = stats.kept_graphs;
    stats = before;
    stats.kept_graphs = kept_now;
    return y;
  }

  /// This rank's shard of random signs.
  at::Tensor random_signs() const {
    std::vector<double> entries(static_cast<std::size_t>(shard.chunk), 0.0);
    shard.for_each_piece([&](std::int64_t position, std::int64_t begin, std::int64_t size) {
      fill_probe(ProbeDistribution::kRademacher, 0, kPrecisionProbe, begin, size, entries.data() + position);
    });
    return at::from_blob(entries.data(), {shard.chunk}, at::kDouble).to(local.tensor_options(), false, /*copy=*/true);
  }

  /// v, and w = Hv of norm 1, with their products in full precision. Collective.
  struct References {
    at::Tensor v, v_product, w, w_product;
    double seconds = 0;  // of the second product
  };
  References references() {
    References r;
    choose_precision(MatrixPrecision::kFp32);
    r.v = agreed(comm, [&] { return random_signs(); });
    r.v_product = uncounted_product(r.v);
    const double norm = std::sqrt(sums_of(r.v_product, r.v_product, r.v_product)[0]);
    r.w = norm > 0 ? r.v_product / norm : r.v_product;
    const Timer timer;
    r.w_product = uncounted_product(r.w);
    r.seconds = timer.elapsed_s();
    choose_precision(options.precision);
    return r;
  }

  /// a·a, b·b and a·c. Collective.
  std::vector<double> sums_of(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
    const auto dot = [](const at::Tensor& x, const at::Tensor& y) {
      return x.to(at::kDouble).mul(y.to(at::kDouble)).sum().item<double>();
    };
    return comm.sum(agreed(comm, [&] { return std::vector<double>{dot(a, a), dot(b, b), dot(a, c)}; }));
  }

  /// While nothing is kept: products from what is kept are the same. Collective.
  void measure_effect() {
    const References full = references();
    double seconds = 0;
    const auto compare = [&](const at::Tensor& x, const at::Tensor& y, double& error, double& rayleigh_error) {
      const Timer timer;
      const at::Tensor difference = uncounted_product(x) - y;
      seconds = timer.elapsed_s();
      const std::vector<double> of_difference = sums_of(x, difference, difference), of_y = sums_of(x, y, y);
      if (of_y[1] > 0) error = std::sqrt(of_difference[1] / of_y[1]);
      if (of_y[2] != 0) rayleigh_error = std::abs(of_difference[2] / of_y[2]);
      return of_y[0] > 0 ? std::sqrt(of_difference[1] / of_y[0]) : 0.0;
    };
    effect.moved = compare(full.v, full.v_product, effect.error, effect.rayleigh_error);
    compare(full.w, full.w_product, effect.leading_error, effect.leading_rayleigh_error);
    const std::vector<double> all = comm.sum({seconds, full.seconds});
    effect.time = all[0] / all[1];
  }

  // --- construction -------------------------------------------------------------------------------------------------

  /// Half of this rank's share of its device's free memory; the other half is left to everything else.
  std::int64_t half_of_free_memory() const {
    return free_memory_bytes(device()) / (device().is_cpu() ? 2 * std::max(1, options.ranks_on_node) : 2);
  }

  /// Collective: one size for all ranks, measured by the one that has the first row.
  void choose_micro_batch() {
    auto size = local.given_micro_batch(options.micro_batch);
    if (!size && is_sharded()) throw Error(ExitCode::kInternal, "sharded parameters: the plan chooses the micro-batch");
    if (!size) {
      std::int64_t found = 0;
      agree(comm, [&] {
        if (local.rows() > 0 && local.global_rows().begin == 0)
          found = ProductTrials(local).best_micro_batch(half_of_free_memory());
      });
      size = comm.max(found);
    }
    stats.micro_batch = *size;
  }

  /// Decides on groups of rows, as soon as the micro-batch is known. Collective.
  void choose_row_groups() {
    if (options.row_groups == 0 || options.warm) return;
    const auto fixed = local.program().static_batch();
    grouping = {comm.max(local.global_rows().end), options.units.rows,
                fixed ? *fixed : std::max<std::int64_t>(options.units.rows > 1 ? 1 : 2, local.fewest_rows()), 0};
    const std::int64_t most = grouping.rows / std::max(grouping.unit, grouping.fewest);
    if (options.row_groups > 0) {
      agree(comm, [&] {
        if (options.row_groups > most)
          throw UsageError("--data-error " + std::to_string(options.row_groups) + ": the " +
                           std::to_string(grouping.rows) + " rows can be cut into " + std::to_string(most) +
                           " groups at most");
      });
      grouping.groups = options.row_groups;
      return;
    }
    std::vector<double> counts{static_cast<double>(local.micro_batches(stats.micro_batch).size())};
    for (grouping.groups = 1; grouping.groups <= kMostAutoGroups; ++grouping.groups)
      counts.push_back(grouping.groups <= most ? static_cast<double>(ranges().size()) : 0.0);
    grouping.groups = choose_groups(comm.sum(counts));
  }

  /// This rank's micro-batches. A program with a fixed batch is given whole ones, which may reach into the next group.
  std::vector<GroupedRange> ranges() const {
    std::vector<GroupedRange> all;
    const std::int64_t first = local.global_rows().begin;
    if (grouping.groups == 0 || local.program().static_batch()) {
      for (const RowRange range : local.micro_batches(stats.micro_batch))
        all.push_back({range, grouping.groups == 0 ? 0 : grouping.group_of(first + range.begin)});
      return all;
    }
    all = cut_at_groups(grouping, local.global_rows(), stats.micro_batch);
    for (GroupedRange& one : all) {
      one.range.begin -= first;
      one.range.end -= first;
    }
    return all;
  }

  /// Takes over what trials have left of all rows. @return ℓ_sum
  double take_over(WarmProducts& warm) {
    batches = std::move(warm.batches);
    batch_products = std::move(warm.products);
    kept = batch_products.size();
    inputs = std::move(warm.inputs);
    sums = std::move(warm.sums);
    known_product_s = warm.product_s;
    gradient = std::move(warm.gradient);
    stats.gradient_s = warm.gradient_s;
    stats.graph_bytes = warm.graph_bytes;
    stats.kept_graphs = static_cast<std::int64_t>(kept);
    return warm.loss;
  }

  /// One pass over the data: checks every target, and adds up loss, count and gradient.
  /// Whether the first pass keeps what it makes: on CPUs, where the gradient is of what is kept.
  bool keeps_at_once() const {
    return device().is_cpu() && local.choice().tangent && !local.choice().gauss_newton() &&
           local.choice().precision == MatrixPrecision::kFp32;
  }

  void first_pass(double& local_loss, double& local_count) {
    begin_keeping();
    if (!keeps_at_once()) return first_pass(/*at_once=*/false, local_loss, local_count);
    try {
      first_pass(/*at_once=*/true, local_loss, local_count);
    } catch (const std::exception& e) {
      if (!is_out_of_memory(e)) throw;
      batches.clear();
      batch_products.clear();
      group_of.clear();
      kept = 0;
      stats.gradient_s = local_loss = local_count = 0;
      first_pass(/*at_once=*/false, local_loss, local_count);
      begin_keeping();
    }
  }

  /// What a micro-batch has of its group of rows, where there are groups.
  void add_to_group(std::size_t batch, double its_count, double its_loss) {
    if (grouping.groups == 0) return;
    const auto group = static_cast<std::size_t>(group_of[batch]);
    groups.rows[group] += batches[batch].rows;
    groups.share[group] += its_count;
    groups.loss[group] += its_loss;
  }

  void begin_batches() {
    for (const GroupedRange& one : ranges()) {
      batches.push_back(local.batch(one.range));
      group_of.push_back(one.group);
    }
    const auto number = static_cast<std::size_t>(grouping.groups);
    groups = {std::vector<std::int64_t>(number), std::vector<double>(number), std::vector<double>(number)};
  }

  void first_pass(bool at_once, double& local_loss, double& local_count) {
    if (options.warm) {
      local_loss = take_over(*options.warm);
      for (const MicroBatch& batch : batches) {
        local.check_values(batch);
        local_count += local.count(batch);
      }
      return check_loss(local_loss);
    }
    make_room(1);
    begin_batches();
    for (std::size_t i = 0; i < batches.size(); ++i) {
      const MicroBatch& batch = batches[i];
      local.check_values(batch);
      batch_products.push_back(local.products(batch));
      const Timer timer;
      const double its_loss = at_once && may_keep_more() ? keep_with_gradient(*batch_products.back())
                                                         : batch_products.back()->add_gradient(sum(0));
      const double its_count = local.count(batch);
      finish_device_work(sum(0));
      stats.gradient_s += timer.elapsed_s();
      local_loss += its_loss;
      local_count += its_count;
      add_to_group(i, its_count, its_loss);
    }
    check_loss(local_loss);
  }

  void check_loss(double local_loss) {
    stats.micro_batches = static_cast<std::int64_t>(batches.size());
    if (std::isfinite(local_loss)) return;
    const std::string where = first_non_finite(local, local.micro_batches(stats.micro_batch), {});
    throw InputError("the loss is not finite (" + std::to_string(local_loss) + ") " +
                     (where.empty() ? "summed over rows " + std::to_string(local.global_rows().begin) + " to " +
                                          std::to_string(local.global_rows().end - 1)
                                    : where));
  }

  /// Says where a quantity stops being finite. Collective.
  /// @param v  whose product is not finite; empty where it is the gradient
  /// @throws InputError on every rank, where any rank's rows show it
  void explain_non_finite(const std::string& what, const std::vector<at::Tensor>& v) {
    if (sharded)
      throw InputError(what +
                       " is not finite; where parameters are sharded, it is not looked for the row and the node: "
                       "--parameters replicated does");
    while (kept > 0) drop_last();  // the run is at its end, and looking takes memory
    agree(comm, [&] {
      const std::string where = first_non_finite(local, local.micro_batches(stats.micro_batch), v);
      if (!where.empty()) throw InputError(what + " is not finite: " + where);
    });
  }

  /// What LocalLoss::check finds of a program that is run here.
  void check_output_in_file(const MicroBatch& batch) const {
    const int counts = options.loss.count_output;
    check_output_loss(local.program(), options.loss, options.output_index, batch);
    if (counts >= 0 && reads_parameters(local.program(), static_cast<std::size_t>(counts)))
      throw InputError("--count-output: " + name_of_output(local.program(), counts) +
                       " is made from the model's parameters, which no rank has whole (--parameters sharded): give a "
                       "count that is made from the inputs alone, or --parameters replicated");
  }

  /// The first pass where parameters are sharded. Collective.
  void first_sharded_pass(double& local_loss, double& local_count) {
    agree(comm, [&] {
      if (!local.tangent_program().depends_on_parameters())
        throw InputError("output " + std::to_string(options.output_index) + " of the model does not depend on its " +
                         "parameters" + local.program().lost_gradients(options.output_index).reason);
      begin_batches();
      if (local.loss_options().kind == LossKind::kOutput && !batches.empty()) check_output_in_file(batches.front());
      for (std::size_t i = 0; i < batches.size(); ++i) {
        const double its_count = local.count(batches[i]);
        local_count += its_count;
        add_to_group(i, its_count, 0);
      }
      stats.micro_batches = std::ssize(batches);
    });
    const ShardedOptions how{.cuts = options.cuts,
                             .tangents = options.joint_products,
                             .fetch_ahead = options.fetch_ahead,
                             .span = static_cast<std::size_t>(options.span),
                             .passes = static_cast<std::size_t>(options.passes),
                             .crossing_on_host = options.crossing_on_host,
                             .on_host = options.on_host};
    sharded = std::make_unique<ShardedProducts>(local, batches, comm, how);
    shard = sharded->shard();
    gradient = agreed(comm, [&] { return at::zeros({shard.chunk}, vector_options()); });
    if (options.loss.kind == LossKind::kBce || options.loss.kind == LossKind::kNll) {
      const std::vector<at::Tensor> outputs = sharded->outputs();
      agree(comm, [&] {
        for (std::size_t i = 0; i < outputs.size(); ++i)
          check_output(local.loss_options(), local.rows_of_output(outputs[i], batches[i]), batches[i].first_row);
      });
    }
    const Timer timer;
    const std::vector<double>& losses = sharded->gradient(gradient);
    finish_device_work(gradient);
    stats.gradient_s = timer.elapsed_s();
    for (std::size_t i = 0; i < losses.size(); ++i) {
      local_loss += losses[i];
      if (grouping.groups > 0) groups.loss[static_cast<std::size_t>(group_of[i])] += losses[i];
    }
    agree(comm, [&] {
      if (!std::isfinite(local_loss))
        throw InputError("the loss is not finite (" + std::to_string(local_loss) + ") summed over rows " +
                         std::to_string(local.global_rows().begin) + " to " +
                         std::to_string(local.global_rows().end - 1));
    });
  }

  void loss_and_gradient() {
    double local_loss = 0, local_count = 0;
    if (is_sharded()) first_sharded_pass(local_loss, local_count);
    agree(comm, [&] {
      if (sharded) return;
      first_pass(local_loss, local_count);
      at::AutoGradMode grad(true);
      if (options.check_double_backward) local.check_turned_down();
      if (!options.warm) gradient = at::zeros({shard.chunk}, local.tensor_options());
    });
    capacity = 1;
    const std::vector<double> totals = comm.sum({local_loss, local_count});
    if (!(totals[1] > 0))
      throw InputError(options.loss.kind == LossKind::kOutput
                           ? "the counts of all rows are zero: the loss has no terms"
                           : "every target is the ignored index, or its weight is zero: the loss has no terms");
    count = totals[1];
    divisor = options.loss.reduction == Reduction::kSum ? 1 : count;
    loss = totals[0] / divisor;
    sum_up_groups();
    if (options.warm || sharded)
      gradient.div_(divisor);
    else
      scatter(std::span<at::Tensor>(&gradient, 1));
    // One pass, where no sum overflows: what is not finite leaves no sum finite.
    const auto is_finite = [&] {
      return std::isfinite(gradient.sum().item<double>()) || at::isfinite(gradient).all().item<bool>();
    };
    if (!comm.any(agreed(comm, [&] { return !is_finite(); }))) return;
    explain_non_finite("the gradient of the loss", {});
    throw InputError("the gradient of the loss is not finite");
  }

  /// What the ranks have of each group, together. Collective.
  void sum_up_groups() {
    if (grouping.groups == 0) return;
    std::vector<double> rows(groups.rows.begin(), groups.rows.end());
    rows = comm.sum(std::move(rows));
    groups.share = comm.sum(std::move(groups.share));
    groups.loss = comm.sum(std::move(groups.loss));
    const bool is_sum = options.loss.reduction == Reduction::kSum;
    for (std::size_t g = 0; g < rows.size(); ++g) {
      groups.rows[g] = static_cast<std::int64_t>(rows[g]);
      groups.share[g] = is_sum ? rows[g] / static_cast<double>(grouping.rows) : groups.share[g] / count;
      groups.loss[g] /= divisor;
    }
  }

  /// Where the first pass was too short to tell by itself, times the gradient, warm: the median of three on the first
  /// micro-batch, scaled to this rank's rows.
  void time_gradient() {
    if (batches.empty() || stats.gradient_s > kLongGradient_s) return;
    const std::unique_ptr<BatchProducts> apart = local.products(batches.front());  // what is kept stays
    std::vector<double> seconds;
    for (int i = 0; i < 3; ++i) {
      const Timer timer;
      apart->add_gradient(sum(0));
      finish_device_work(sum(0));
      seconds.push_back(timer.elapsed_s());
    }
    std::sort(seconds.begin(), seconds.end());
    stats.gradient_s = seconds[1] / static_cast<double>(batches.front().rows) * static_cast<double>(local.rows());
  }

  // As many micro-batches are kept as the budget allows, the first ones; measured as they come.

  void begin_keeping() {
    keeping = {};
    if (options.graph_budget_bytes == 0 || !keeps(options.product)) return;
    keeping.budget = options.graph_budget_bytes > 0 ? options.graph_budget_bytes : half_of_free_memory();
    keeping.over = false;
  }

  bool may_keep_more() const {
    return !keeping.over && (kept == 0 || keeping.used + keeping.largest <= keeping.budget);
  }

  /// Of the next one, which is kept by now: it is dropped again where it was too much.
  void count_kept(BatchProducts& batch, std::int64_t bytes) {
    keeping.used += std::max<std::int64_t>(bytes, 0);
    keeping.largest = std::max(keeping.largest, bytes);
    if (keeping.used <= keeping.budget) {
      ++kept;
      return;
    }
    batch.drop();
    keeping.over = true;
  }

  /// Into sum(0). @return ℓ_sum
  double keep_with_gradient(BatchProducts& batch) {
    const AllocationMeter meter(device());
    const double loss = batch.keep_with_gradient(sum(0));
    count_kept(batch, meter.held_bytes());
    return loss;
  }

  void keep_within_budget() {
    for (std::size_t i = kept; i < batch_products.size() && may_keep_more(); ++i) {
      const AllocationMeter meter(device());
      BatchProducts& batch = *batch_products[i];
      try {
        batch.keep();
        count_kept(batch, meter.held_bytes());
      } catch (const std::exception& e) {
        if (!is_out_of_memory(e)) throw;
        if (kept > 0) drop_last();  // room for what a product needs besides
        batch.drop();
        keeping.over = true;
      }
    }
    if (options.graph_budget_bytes == 0 || !keeps(options.product)) return;
    stats.graph_bytes = keeping.largest;
    stats.kept_graphs = static_cast<std::int64_t>(kept);
  }
};

HessianOperator::HessianOperator(Program& program, DataShard data, Communicator& comm, const HessianOptions& options) {
  agree(comm, [&] { impl_ = std::make_unique<Impl>(program, std::move(data), comm, options); });
  if (options.phases != nullptr && options.phases->timeline() != nullptr && impl_->local.choice().tangent)
    impl_->local.tangent_program().record_in(options.phases->timeline());
  impl_->choose_micro_batch();
  impl_->choose_row_groups();
  {
    const PhaseTimer timer(options.phases, Phase::kStart, "first gradient");
    impl_->loss_and_gradient();
  }
  if (options.precision != MatrixPrecision::kFp32) impl_->measure_effect();
  agree(comm, [&] {
    const PhaseTimer timer(options.phases, Phase::kStart, "what is kept");
    if (impl_->options.warm || impl_->sharded) return;
    impl_->time_gradient();
    impl_->keep_within_budget();
  });
  impl_->options.warm = nullptr;
}

HessianOperator::~HessianOperator() = default;

Communicator& HessianOperator::comm() const { return impl_->comm; }
const Shard& HessianOperator::shard() const { return impl_->shard; }
at::TensorOptions HessianOperator::options() const { return impl_->vector_options(); }
double HessianOperator::loss() const { return impl_->loss; }
double HessianOperator::count() const { return impl_->count; }
const at::Tensor& HessianOperator::gradient() const { return impl_->gradient; }
const HessianStats& HessianOperator::stats() const { return impl_->stats; }

const PrecisionEffect& HessianOperator::precision_effect() const { return impl_->effect; }
MatrixPrecision HessianOperator::precision() const { return impl_->local.choice().precision; }

void HessianOperator::set_precision(MatrixPrecision precision) {
  agree(impl_->comm, [&] { impl_->set_precision(precision); });
}

std::vector<OpSeconds> HessianOperator::op_seconds() const {
  if (!impl_->local.choice().tangent) return {};
  return impl_->local.tangent_program().seconds();
}

bool HessianOperator::is_sharded() const { return impl_->sharded != nullptr; }

RowCheck HessianOperator::check_rows(const ArrayFile& file, const DatasetSpec& spec) {
  return impl_->sharded->check_rows(file, spec, impl_->options.loss, impl_->options.output_index);
}

OperatorParts HessianOperator::parts() { return {impl_->local, impl_->batches, impl_->divisor}; }

void HessianOperator::apply(const at::Tensor& x_local, at::Tensor& y_local) {
  impl_->apply(std::span<const at::Tensor>(&x_local, 1), std::span<at::Tensor>(&y_local, 1));
}

void HessianOperator::apply_part(const Part& part, std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local) {
  impl_->apply_part(part, x_local, y_local);
}

Shard HessianOperator::shard_of(const Part& part) const { return impl_->shard_of(part); }

void HessianOperator::explain_non_finite(const at::Tensor& x_local) {
  std::vector<at::Tensor> whole;
  if (!is_sharded()) {
    impl_->gather(std::span<const at::Tensor>(&x_local, 1));
    whole = impl_->views(impl_->input(0));
  }
  impl_->explain_non_finite("a product with the Hessian", whole);
}

const RowGroups& HessianOperator::row_groups() const { return impl_->groups; }

std::vector<double> HessianOperator::apply_in_groups(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local,
                                                     std::span<const at::Tensor> others,
                                                     const std::vector<std::int64_t>& segments) {
  return impl_->apply_in_groups(x_local, y_local, others, segments);
}

void HessianOperator::apply_block(std::span<const at::Tensor> x_local, std::span<at::Tensor> y_local) {
  impl_->apply(x_local, y_local);
}

}  // namespace hesspect
