-- Text: whether bytes are valid UTF-8. All readers expect that of an id.

local text = {}

local MORE = '[\128-\191]'

-- Characters of more than one byte. The table is made only if there are any: almost no text has.
local function characters()
  return {
    '[\194-\223]' .. MORE, '\224[\160-\191]' .. MORE, '[\225-\236\238\239]' .. MORE .. MORE, '\237[\128-\159]' .. MORE,
    '\240[\144-\191]' .. MORE .. MORE, '[\241-\243]' .. MORE .. MORE .. MORE, '\244[\128-\143]' .. MORE .. MORE,
  }
end

function text.is_valid(bytes)
  if not bytes:find('[\128-\255]') then return true end
  for _, character in ipairs(characters()) do bytes = bytes:gsub(character, ' ') end
  return not bytes:find('[\128-\255]')
end

return text
