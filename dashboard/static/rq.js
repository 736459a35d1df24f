// Beside rq-dashboard's scripts: its templates escape what they show, and people are told what went wrong.
(function () {
    "use strict";
    // Its templates write values by <%= %>, which by itself escapes nothing.
    _.templateSettings = {
        evaluate: /<%([\s\S]+?)%>/g,
        interpolate: /(.)^/g,  // nothing
        escape: /<%[=-]([\s\S]+?)%>/g
    };

    var said = document.createElement("p");
    said.setAttribute("role", "status");

    function say(text, kind) {
        said.className = "container alert alert-" + kind;
        said.textContent = text;
        document.getElementById("navbar-dashboard").after(said);
    }

    $(document).ajaxError(function (event, xhr) {
        if (xhr.status === 401) { say("Your session has ended: log in again.", "danger"); }
        else { say(xhr.responseText || "The dashboard can't be reached.", "danger"); }
    });
    $(document).ajaxSuccess(function (event, xhr) {
        var answer = xhr.responseJSON || {};
        if (answer.message) { say(answer.message, "success"); }
        else if (said.classList.contains("alert-danger")) { said.remove(); }
    });
})();
