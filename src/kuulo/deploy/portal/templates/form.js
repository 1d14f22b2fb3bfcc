'use strict';
// What is behind "More options" is shown when that box is ticked. Without JavaScript all of it is shown.
(function () {
  const more = @@MORE@@;
  const prefix = 'batch_connect_session_context_';

  function group(field) {
    return field.closest('.form-group, .mb-3, .form-check') || field;
  }

  function show(box) {
    for (const name of more) {
      const field = document.getElementById(prefix + name);
      if (field) {
        group(field).style.display = box.checked ? '' : 'none';
      }
    }
  }

  function begin() {
    const box = document.getElementById(prefix + 'kuulo_more');
    if (box) {
      box.addEventListener('change', function () { show(box); });
      show(box);
    }
  }

  if (document.readyState === 'loading') {
    document.addEventListener('DOMContentLoaded', begin);
  } else {
    begin();
  }
}());
