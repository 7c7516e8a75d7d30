// Programs that were exported on the meta device or with fake tensors: they hold names and shapes, and no weights.
// Before, they were refused as 'different views of one weight', for the archive has one empty record for all of them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/input_error.h"
#include "hesspect/model/program.h"
#include "support/fixture.h"

namespace hesspect::program_weights_test {
namespace {

using test::input_error;

std::string folder() { return test::fixtures_dir() + "/ckpt/weightless/"; }

Program load(const std::string& name) { return Program::load(folder() + name + ".pt2", {at::kDouble, at::kCPU}); }

std::vector<StateDict> files(const std::vector<std::string>& names) {
  std::vector<StateDict> state_dicts;
  for (const std::string& name : names) state_dicts.push_back(read_state_dict(folder() + name));
  return state_dicts;
}

at::Tensor logits(const Program& program) {
  const at::Tensor ids = at::arange(15, at::kLong).remainder(7).view({3, 5});
  return program.run({ids}).at(0);
}

/// The program exported with its weights, which knows its ties by record.
const Program& complete() {
  static const Program program = load("tied");
  return program;
}

TEST(Weightless, LoadsAndTellsWhatItLacks) {
  for (const char* name : {"meta", "fake"}) {
    const Program program = load(name);
    EXPECT_EQ(program.layout().size(), complete().layout().size());
    EXPECT_EQ(program.layout().find("head.weight"), program.layout().find("emb.weight"));
    EXPECT_TRUE(program.parameters().front().is_meta());  // takes no memory
    EXPECT_CONTAINS(input_error([&] { program.require_data(); }), "holds no data for 8 of its weights");
    EXPECT_CONTAINS(input_error([&] { program.require_data(); }), "--weights");
  }
  EXPECT_TRUE(complete().lacking().empty());
  EXPECT_NO_THROW(complete().require_data());
}

// However the state dict holds tied weights, the layout and the outputs are those of the program with weights.
TEST(Weightless, AnyFormOfTheWeightsGivesTheWholeProgram) {
  for (const char* name : {"meta", "fake"}) {
    for (const char* weights :
         {"shared.pt", "copies.safetensors", "without_head.safetensors", "without_embedding.safetensors"}) {
      SCOPED_TRACE(std::string(name) + " with " + weights);
      Program program = load(name);
      const OverlayReport report = program.overlay(files({weights}));
      EXPECT_EQ(report.warnings.size(), weights == std::string("without_head.safetensors") ? 1U : 0U);
      EXPECT_TRUE(program.lacking().empty());
      EXPECT_EQ(program.layout().size(), complete().layout().size());
      EXPECT_EQ(program.layout().find("head.weight"), program.layout().find("emb.weight"));
      EXPECT_NE(program.layout().find("dead.weight"), program.layout().find("mid.weight"));
      EXPECT_TRUE(logits(program).equal(logits(complete())));
      for (const ParameterEntry& entry : program.layout().entries()) {
        const ParameterEntry* other = complete().layout().find(entry.name);
        ASSERT_NE(other, nullptr);
        EXPECT_EQ(entry.offset, other->offset);
      }
    }
  }
}

// A later file that holds one name of a tied weight means both, as it does for the program with weights.
TEST(Weightless, TiesHoldAcrossFiles) {
  Program with = load("tied");
  with.overlay(files({"shared.pt", "other_embedding.pt"}));
  EXPECT_FALSE(logits(with).equal(logits(complete())));
  for (const char* base :
       {"shared.pt", "copies.safetensors", "without_head.safetensors", "without_embedding.safetensors"}) {
    SCOPED_TRACE(base);
    Program without = load("meta");
    if (base == std::string("without_embedding.safetensors")) {
      // The names never stand in one file: nothing tells that they are one.
      EXPECT_CONTAINS(input_error([&] { without.overlay(files({base, "other_embedding.pt"})); }), "'emb.weight'");
      continue;
    }
    without.overlay(files({base, "other_embedding.pt"}));
    EXPECT_EQ(without.layout().size(), with.layout().size());
    EXPECT_TRUE(logits(without).equal(logits(with)));
  }
}

TEST(Weightless, PartsOfTheWeights) {
  Program program = load("meta");
  // `dead` has the same shapes, is there and is not used, but is no other name of `mid`.
  EXPECT_CONTAINS(input_error([&] { program.overlay(files({"without_mid.safetensors"})); }),
                  "2 missing (mid.weight, mid.bias)");
  Program partly = load("meta");
  const OverlayReport report = partly.overlay(files({"without_norm.safetensors"}), /*partial=*/true);
  EXPECT_EQ(report.not_covered, (std::vector<std::string>{"norm.weight", "norm.bias"}));
  EXPECT_EQ(partly.lacking(), report.not_covered);
  EXPECT_CONTAINS(input_error([&] { partly.require_data(); }), "2 of its weights");
}

// Tied after the export: known where the file shares their memory, said where it holds equal values.
TEST(Weightless, NamesThatAreUsedSideBySide) {
  Program shared = load("meta_untied");
  EXPECT_NE(shared.layout().find("head.weight"), shared.layout().find("emb.weight"));
  EXPECT_TRUE(shared.overlay(files({"shared.pt"})).warnings.empty());
  EXPECT_EQ(shared.layout().find("head.weight"), shared.layout().find("emb.weight"));
  EXPECT_EQ(shared.layout().size(), complete().layout().size());
  EXPECT_TRUE(logits(shared).equal(logits(complete())));
  Program copied = load("meta_untied");
  const OverlayReport report = copied.overlay(files({"copies.safetensors"}));
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_CONTAINS(report.warnings[0], "'emb.weight' and 'head.weight' hold the same values");
  EXPECT_EQ(copied.layout().size(), complete().layout().size() + 28);
  EXPECT_CONTAINS(input_error([&] { load("meta_untied").overlay(files({"without_head.safetensors"})); }),
                  "1 missing (head.weight)");
}

TEST(Weightless, ConstantsWithoutDataAreNamed) {
  Program program = load("meta_constant");
  EXPECT_CONTAINS(input_error([&] { program.require_data(); }), "state dicts don't hold them: mask");
  EXPECT_CONTAINS(input_error([&] { program.overlay(files({"shared.pt"})); }), "hold no data");
  EXPECT_NO_THROW(program.overlay(files({"shared.pt", "mask.safetensors"})));
  EXPECT_TRUE(logits(program).equal(logits(complete())));
}

TEST(Weightless, StandInsRun) {
  Program program = load("meta_constant");
  program.use_stand_ins();
  EXPECT_TRUE(logits(program).isfinite().all().item<bool>());
  EXPECT_FALSE(program.lacking().empty());
}

}  // namespace
}  // namespace hesspect::program_weights_test
