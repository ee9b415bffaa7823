// The names of a table of variants, as the C interface tells them: separated by commas.
#pragma once

#include <string>

namespace awqbench {

template <class V, int N>
std::string names_of(const V (&variants)[N]) {
    std::string all;
    for (const V& variant : variants) all += (all.empty() ? "" : ",") + std::string(variant.name);
    return all;
}

}  // namespace awqbench
