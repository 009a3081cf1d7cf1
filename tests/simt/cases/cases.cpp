// Runs a case by its name, in an executable or a shared library.

#include "cases.h"

#include <cstdio>
#include <map>

#include "simt.h"

namespace cases {
namespace {

std::map<std::string, Run>& registry() {
  static std::map<std::string, Run> cases;
  return cases;
}

}  // namespace

Registration::Registration(const char* name, Run run) { registry()[name] = run; }

}  // namespace cases

// "ok", or what went wrong.
extern "C" __attribute__((visibility("default"))) const char* run_case(const char* name) {
  static std::string result;
  simt::reset_access_counters();
  try {
    cases::registry().at(name)();
    result = "ok";
  } catch (const std::exception& error) {
    result = error.what();
  }
  return result.c_str();
}

extern "C" __attribute__((visibility("default"))) void set_seed(unsigned seed) { simt::set_seed(seed); }

int main(int count, char** arguments) {
  if (count != 2) return 2;
  std::printf("%s\n", run_case(arguments[1]));
  for (const simt::AccessCounters& c : simt::access_counters())
    std::printf("%s %s %llu %llu %s\n", c.shared ? "shared" : "global", c.write ? "write" : "read",
                static_cast<unsigned long long>(c.actual), static_cast<unsigned long long>(c.ideal), c.where.c_str());
}
