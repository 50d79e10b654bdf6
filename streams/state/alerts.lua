-- The alerts pipeline has no effect a signal: it judges windows, which are there already, and what it decides is a
-- transition (transition.lua). So a signal leaves its mark and its count, no more. Comes before guard.lua.
local function apply() return false end
local function recall() return false end
